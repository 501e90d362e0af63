//! A run's measurements for TensorBoard: event files in the run's folder, which `tensorboard --logdir runs` shows.
//!
//! A file is a sequence of records of TFRecord: the length of what follows in 8 bytes, a checksum of these, the bytes
//! of one message, and a checksum of them; all little-endian. The message is `Event` of TensorFlow's `event.proto`, of
//! which the parts that are written are declared below under their numbers there. Checksums are CRC-32C, masked as
//! TensorFlow's `crc32c.h` says: what is stored beside data must not be the checksum of these very bytes.
//!
//! Each process that trains into a run begins a file of its own. That of a resumed run begins with the mark by which
//! TensorBoard forgets what it has read of the steps that are about to be done again, so nothing is shown twice and
//! the file of a killed process, whose last record may be incomplete, is never written to.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Cursor, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use image::ImageDecoder;
use image::codecs::png::PngDecoder;
use prost::Message;
use thiserror::Error;

/// Events that cannot be written.
#[derive(Debug, Error)]
#[error("{file} cannot be written: {error}", file = .file.display())]
pub struct EventsError {
    /// The file.
    pub file: PathBuf,
    /// What the system said.
    pub error: io::Error,
}

/// A file of events, open at its end.
#[derive(Debug)]
pub struct Events {
    path: PathBuf,
    file: File,
    /// The length of the file up to its last whole record.
    whole: u64,
}

#[derive(Clone, PartialEq, Message)]
struct Event {
    /// Seconds since 1970.
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(string, optional, tag = "3")]
    file_version: Option<String>,
    #[prost(message, optional, tag = "5")]
    summary: Option<Summary>,
    #[prost(message, optional, tag = "7")]
    session_log: Option<SessionLog>,
}

#[derive(Clone, PartialEq, Message)]
struct SessionLog {
    /// [`START`].
    #[prost(int32, tag = "1")]
    status: i32,
}

/// Of the values of `SessionLog.SessionStatus`, the one that begins at a step and makes what was logged from it on void.
const START: i32 = 1;

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<SummaryValue>,
}

#[derive(Clone, PartialEq, Message)]
struct SummaryValue {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
    #[prost(message, optional, tag = "4")]
    image: Option<Image>,
    #[prost(message, optional, tag = "8")]
    tensor: Option<TensorProto>,
    #[prost(message, optional, tag = "9")]
    metadata: Option<Metadata>,
}

#[derive(Clone, PartialEq, Message)]
struct Image {
    #[prost(int32, tag = "1")]
    height: i32,
    #[prost(int32, tag = "2")]
    width: i32,
    /// Channels: 1 is grey, 3 is red, green and blue.
    #[prost(int32, tag = "3")]
    colorspace: i32,
    #[prost(bytes = "vec", tag = "4")]
    encoded_image_string: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct TensorProto {
    /// [`DT_STRING`].
    #[prost(int32, tag = "1")]
    dtype: i32,
    /// Without dimensions: one text.
    #[prost(message, optional, tag = "2")]
    tensor_shape: Option<TensorShape>,
    #[prost(bytes = "vec", repeated, tag = "8")]
    string_val: Vec<Vec<u8>>,
}

const DT_STRING: i32 = 7;

#[derive(Clone, PartialEq, Message)]
struct TensorShape {}

#[derive(Clone, PartialEq, Message)]
struct Metadata {
    #[prost(message, optional, tag = "1")]
    plugin_data: Option<PluginData>,
}

#[derive(Clone, PartialEq, Message)]
struct PluginData {
    #[prost(string, tag = "1")]
    plugin_name: String,
}

/// The version of the format, which the first event of a file says.
const VERSION: &str = "brain.Event:2";

impl Events {
    /// Begins a file in a run's folder, to continue after `step`; a new run starts after step 0. `text` is the program's,
    /// shown under the tag `program`; it is written where no file says it yet.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn create(dir: &Path, step: u64, text: &str) -> Result<Events, EventsError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let is_first = !has_events(dir);
        let (path, file) = new_file(dir, now.as_secs())?;
        let mut events = Events { path, file, whole: 0 };
        let event = Event { file_version: Some(VERSION.into()), ..Event::default() };
        events.write(0, event)?;
        if step > 0 {
            let event = Event { session_log: Some(SessionLog { status: START }), ..Event::default() };
            events.write(step + 1, event)?;
        }
        if !is_first {
            return Ok(events);
        }
        // TensorBoard shows texts as Markdown; indented by four, a line is shown as it is, whatever is in it.
        let text: String = text.lines().map(|line| format!("    {line}\n")).collect();
        let tensor =
            TensorProto { dtype: DT_STRING, tensor_shape: Some(TensorShape {}), string_val: vec![text.into_bytes()] };
        let plugin_data = Some(PluginData { plugin_name: "text".into() });
        let metadata = Some(Metadata { plugin_data });
        let value = SummaryValue { tag: "program".into(), tensor: Some(tensor), metadata, ..SummaryValue::default() };
        events.write(step, summary(vec![value]))?;
        Ok(events)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Numbers of a step by name, such as the losses.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn scalars<'a>(
        &mut self,
        step: u64,
        values: impl IntoIterator<Item = (&'a str, f32)>,
    ) -> Result<(), EventsError> {
        let value = |(tag, value): (&str, f32)| SummaryValue {
            tag: tag.into(),
            simple_value: Some(value),
            ..SummaryValue::default()
        };
        self.write(step, summary(values.into_iter().map(value).collect()))
    }

    /// The sample grid of a step: the bytes of a PNG.
    ///
    /// # Errors
    /// When they are not a PNG, or the system refuses.
    pub fn samples(&mut self, step: u64, png: Vec<u8>) -> Result<(), EventsError> {
        let decoder = PngDecoder::new(Cursor::new(&png[..]));
        let decoder =
            decoder.map_err(|error| EventsError { file: self.path.clone(), error: io::Error::other(error) })?;
        let (width, height) = decoder.dimensions();
        let colorspace = i32::from(decoder.color_type().channel_count());
        let (width, height) = (width as i32, height as i32);
        let image = Image { height, width, colorspace, encoded_image_string: png };
        let value = SummaryValue { tag: "samples".into(), image: Some(image), ..SummaryValue::default() };
        self.write(step, summary(vec![value]))
    }

    /// One call for each record, so that a reader never sees half of one for long.
    fn write(&mut self, step: u64, event: Event) -> Result<(), EventsError> {
        let wall_time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let event = Event { wall_time, step: i64::try_from(step).unwrap_or(i64::MAX), ..event };
        let bytes = record(&event.encode_to_vec());
        let written = self.file.write_all(&bytes);
        match &written {
            Ok(()) => self.whole += bytes.len() as u64,
            // A reader stops at half a record: it is taken away again.
            Err(_) => drop(self.file.set_len(self.whole).and_then(|()| self.file.seek(SeekFrom::Start(self.whole)))),
        }
        written.map_err(|error| EventsError { file: self.path.clone(), error })
    }
}

fn summary(value: Vec<SummaryValue>) -> Event {
    Event { summary: Some(Summary { value }), ..Event::default() }
}

/// Whether a folder has a file of events.
fn has_events(dir: &Path) -> bool {
    let names = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.file_name());
    names.into_iter().any(|name| name.to_string_lossy().starts_with(PREFIX))
}

/// What the names of files of events begin with: TensorBoard reads only those that have it.
const PREFIX: &str = "events.out.tfevents.";

/// A file that was not there. TensorBoard reads a folder's files in the order of their names: they sort by the time, and
/// those of one second by a number.
fn new_file(dir: &Path, seconds: u64) -> Result<(PathBuf, File), EventsError> {
    let mut number = 0;
    loop {
        let path = dir.join(format!("{PREFIX}{seconds:010}.{number:03}.gcc-gan"));
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(file) => return Ok((path, file)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < 999 => number += 1,
            Err(error) => return Err(EventsError { file: path, error }),
        }
    }
}

/// A record of TFRecord around bytes.
fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let parts: [&[u8]; 4] = [&length, &masked(&length).to_le_bytes(), data, &masked(data).to_le_bytes()];
    parts.concat()
}

/// The masked CRC-32C: turned right by 15 bits, and a constant added.
fn masked(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The messages in the records of a file, each with its checksums looked at.
    fn read(path: &Path) -> Vec<Event> {
        let bytes = fs::read(path).unwrap();
        let (mut rest, mut events) = (&bytes[..], Vec::new());
        while !rest.is_empty() {
            let (head, tail) = rest.split_at(12);
            assert_eq!(masked(&head[..8]).to_le_bytes(), head[8..]);
            let (data, tail) = tail.split_at(u64::from_le_bytes(head[..8].try_into().unwrap()) as usize);
            let (checksum, tail) = tail.split_at(4);
            assert_eq!(masked(data).to_le_bytes(), checksum);
            events.push(Event::decode(data).unwrap());
            rest = tail;
        }
        events
    }

    /// By the definition alone: the polynomial 0x1EDC6F41, reflected, bit by bit (RFC 3720, B.4, has its check values).
    #[test]
    fn the_checksum_is_the_masked_crc32c() {
        let bitwise = |data: &[u8]| {
            let crc = data.iter().fold(u32::MAX, |crc, &byte| {
                (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 })
            });
            !crc
        };
        assert_eq!(bitwise(&[0; 32]), 0x8a91_36aa);
        for data in [&b""[..], b"123456789", &[0; 32], &[0xff; 100]] {
            let crc = bitwise(data);
            assert_eq!(masked(data), crc.rotate_right(15).wrapping_add(0xa282_ead8));
        }
    }

    /// A message of known bytes: field numbers and kinds as `event.proto` has them.
    #[test]
    fn a_record_has_these_bytes() {
        let value = SummaryValue { tag: "a".into(), simple_value: Some(1.0), ..SummaryValue::default() };
        let event = Event { wall_time: 2.0, step: 3, ..summary(vec![value]) };
        let data = [
            [0x09, 0, 0, 0, 0, 0, 0, 0, 0x40].as_slice(), // 1: a double, 2.0
            &[0x10, 3],                                   // 2: a whole number, 3
            &[0x2a, 10, 0x0a, 8],                         // 5: a summary with 1: a value
            &[0x0a, 1, b'a', 0x15, 0, 0, 0x80, 0x3f],     // 1: its tag; 2: a float, 1.0
        ]
        .concat();
        assert_eq!(event.encode_to_vec(), data);
        assert_eq!(record(&data).len(), 8 + 4 + data.len() + 4);
    }

    #[test]
    fn what_is_written_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut events = Events::create(dir.path(), 0, "Program(\n  name: \"a\",\n)\n").unwrap();
        events.scalars(50, [("loss_d", 0.5), ("loss_g", f32::NAN)]).unwrap();
        let png = dir.path().join("a.png");
        image::GrayImage::new(6, 4).save(&png).unwrap();
        let png = fs::read(png).unwrap();
        events.samples(50, png.clone()).unwrap();
        assert!(events.samples(50, b"no picture".to_vec()).is_err());
        let read = read(events.path());
        assert_eq!(read[0].file_version.as_deref(), Some("brain.Event:2"));
        assert!(read.iter().all(|event| event.wall_time > 1.7e9 && event.session_log.is_none()));
        let values: Vec<_> =
            read[1..].iter().map(|event| (event.step, &event.summary.as_ref().unwrap().value)).collect();
        assert_eq!(values[0].1[0].tensor.as_ref().unwrap().string_val[0], b"    Program(\n      name: \"a\",\n    )\n");
        assert_eq!((values[1].0, values[1].1[0].simple_value), (50, Some(0.5)));
        assert!(values[1].1[1].simple_value.unwrap().is_nan() && values[1].1[1].tag == "loss_g");
        let image = values[2].1[0].image.as_ref().unwrap();
        assert_eq!((image.width, image.height, image.colorspace), (6, 4, 1));
        assert_eq!(image.encoded_image_string, png);
    }

    #[test]
    fn a_resumed_run_marks_where_it_begins_again() {
        let dir = tempfile::tempdir().unwrap();
        let first = Events::create(dir.path(), 0, "").unwrap();
        let second = Events::create(dir.path(), 30, "").unwrap();
        assert!(first.path() < second.path(), "files are read in the order of their names");
        let read = read(second.path());
        assert_eq!((read[1].step, read[1].session_log.as_ref().unwrap().status), (31, START));
        assert_eq!(read.len(), 2, "the text is there already");
        let error = Events::create(&dir.path().join("none"), 0, "").unwrap_err().to_string();
        assert!(error.contains("cannot be written: "), "{error}");
    }
}
