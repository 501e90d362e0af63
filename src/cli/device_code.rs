//! Compiling a plan's kernels for GPUs, and what they take of them.

use anyhow::{Result, bail};
use clap::ValueEnum;
use gcc_gan::exec::cuda::nvrtc::Code;
use gcc_gan::exec::cuda::{AheadError, Disassembler, FunctionResources, compile_ahead, compiler_for};
use gcc_gan::inspect::{Align, Table, bytes};
use gcc_gan::kernel::target::Architecture;
use gcc_gan::plan::Plan;
use gcc_gan::visible::visible;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::fmt::Write as _;
use std::sync::Arc;

/// `--device-code`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DeviceCodeWanted {
    /// Where NVRTC is found
    Auto,
    /// Without NVRTC there is no plan
    Always,
    /// The plan's kernels are compiled where it is run
    Never,
}

/// What was made of a plan's kernels.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Made {
    Code {
        compiler: String,
        /// What it is for, in words.
        runs_on: Vec<String>,
        bytes: usize,
        functions: Vec<FunctionResources>,
    },
    /// Why there is none.
    None { missing: String },
}

/// A bar of compiled kernels, which goes when all are, and comes again when more are compiled. Hidden where standard error is
/// no terminal.
pub fn compilation_bar() -> impl Fn(usize, usize) + Send + Sync {
    let bar = ProgressBar::with_draw_target(None, super::bar_target());
    if let Ok(style) = ProgressStyle::with_template("compiling kernels {bar:30} {pos}/{len}") {
        bar.set_style(style);
    }
    move |done, of| {
        if bar.is_finished() {
            bar.reset();
        }
        bar.set_length(of as u64);
        bar.set_position(done as u64);
        if done == of {
            bar.finish_and_clear();
        }
    }
}

/// That code which is demanded can be made, before there is a plan.
///
/// # Errors
/// When NVRTC is missing, or doesn't know an architecture.
pub fn check(architectures: &[Architecture], wanted: DeviceCodeWanted) -> Result<()> {
    if wanted == DeviceCodeWanted::Always {
        compiler_for(architectures)?;
    }
    Ok(())
}

/// Compiles the kernels of a plan for a GPU, and puts their code into it. Tells of what spills; `None` where nothing was to
/// be made.
///
/// # Errors
/// When code was demanded and can't be made, NVRTC refuses a kernel, or something spills and warnings are denied.
pub fn make(
    plan: &mut Plan,
    architectures: &[Architecture],
    wanted: DeviceCodeWanted,
    deny_warnings: bool,
) -> Result<Option<Made>> {
    if architectures.is_empty() || wanted == DeviceCodeWanted::Never {
        return Ok(None);
    }
    let mut architectures = architectures.to_vec();
    let ahead = loop {
        match compile_ahead(plan, &architectures, &compilation_bar()) {
            Ok(ahead) => break ahead,
            Err(AheadError::Unknown { architecture, compiler, known })
                if wanted == DeviceCodeWanted::Auto && architectures.len() > 1 =>
            {
                // The others are compiled for all the same.
                eprintln!("warning: no code for {architecture}, which {compiler} does not know (it knows {known})");
                architectures.retain(|a| *a != architecture);
            }
            Err(error @ (AheadError::Missing(_) | AheadError::Unknown { .. })) if wanted == DeviceCodeWanted::Auto => {
                return Ok(Some(Made::None { missing: error.to_string() }));
            }
            Err(error) => return Err(error.into()),
        }
    };
    let functions = ahead.resources(plan);
    let spilling = spilling(&functions);
    if deny_warnings && !spilling.is_empty() {
        bail!("{}: --deny-warnings makes it an error", spilling.join("; "));
    }
    for line in &spilling {
        eprintln!("warning: {}", visible(line));
    }
    let code = ahead.device_code();
    let made = Made::Code { compiler: ahead.compiler.clone(), runs_on: code.runs_on(), bytes: code.bytes(), functions };
    plan.device_code = Some(Arc::new(code));
    Ok(Some(made))
}

/// For each architecture the functions that use local memory, as a line: a cubin does not tell why they do.
fn spilling(functions: &[FunctionResources]) -> Vec<String> {
    let mut architectures: Vec<&str> = functions.iter().map(|f| f.architecture.as_str()).collect();
    architectures.dedup();
    let line = |architecture: &str| {
        let spilling = |f: &&FunctionResources| f.architecture == architecture && f.resources.local_bytes > 0;
        let names: Vec<String> = (functions.iter().filter(spilling))
            .map(|f| format!("{} of {} ({} bytes a thread)", f.function, f.entry, f.resources.local_bytes))
            .collect();
        (!names.is_empty()).then(|| {
            let what = match names.len() {
                1 => "a kernel spills registers to local memory, or keeps arrays there".to_string(),
                n => format!("{n} kernels spill registers to local memory, or keep arrays there"),
            };
            format!("on {architecture}, {what}: {}", names.join(", "))
        })
    };
    architectures.into_iter().filter_map(line).collect()
}

impl Made {
    /// In words, with a table of what each function takes of the first architecture.
    pub fn text(&self) -> String {
        let (compiler, runs_on, size, functions) = match self {
            Made::Code { compiler, runs_on, bytes: size, functions } => (compiler, runs_on, size, functions),
            Made::None { missing } => return format!("\ndevice code    none: {missing}\n"),
        };
        let mut text = format!("\ndevice code    {} by {compiler}: {}\n", bytes(*size), runs_on.join(", "));
        let Some(first) = functions.first() else {
            return text + "               what kernels take of a GPU can't be read from it\n";
        };
        let own: Vec<&FunctionResources> = functions.iter().filter(|f| f.architecture == first.architecture).collect();
        let group = |f: &FunctionResources| (f.entry.clone(), f.sizes.clone(), f.kernel.is_some());
        for group in own.chunk_by(|a, b| group(a) == group(b)) {
            let sizes: Vec<String> = group[0].sizes.iter().map(|(name, size)| format!("{name}={size}")).collect();
            let name = [vec![group[0].entry.clone()], sizes].concat().join(" ");
            let what = match group[0].kernel {
                Some(_) => name,
                None => format!("what begins and ends a run of {name} on examples that the GPU keeps,"),
            };
            let _ = writeln!(text, "\n{what} on {}, for a thread and a block", first.architecture);
            let mut table = Table::new([Align::Right, Align::Left, Align::Right, Align::Right, Align::Right]);
            table.row(["#", "function", "registers", "shared bytes", "local bytes"]);
            for f in group {
                let shared = match (f.resources.static_shared_bytes, f.dynamic_shared_bytes) {
                    (fixed, 0) => fixed.to_string(),
                    (0, asked) => asked.to_string(),
                    (fixed, asked) => format!("{fixed} + {asked}"),
                };
                table.row([
                    f.kernel.map_or(String::new(), |number| number.to_string()),
                    f.function.clone(),
                    f.resources.registers.to_string(),
                    shared,
                    f.resources.local_bytes.to_string(),
                ]);
            }
            text += &table.render("  ");
        }
        if own.len() < functions.len() {
            text += "\nthose on the other architectures: --json\n";
        }
        text
    }
}

/// PTX or SASS of every kernel, or of one entry's, each under a heading.
///
/// # Errors
/// When NVRTC or a disassembler is missing, or refuses something; when there is no such entry.
pub fn text(plan: &Plan, architectures: &[Architecture], entry: Option<&str>, is_sass: bool) -> Result<String> {
    if let Some(name) = entry {
        super::program_text::entry_of(plan, Some(name))?;
    }
    // What is missing is said before a minute is spent on what it is for.
    let disassembler = is_sass.then(Disassembler::find).transpose()?;
    let mut plan = plan.clone();
    plan.entries.retain(|e| entry.is_none_or(|name| e.name == name && e.sizes.is_empty()));
    let ahead = compile_ahead(&plan, architectures, &compilation_bar())?;
    let kernels: Vec<_> = ahead.first().filter_map(|(text, code)| Some((text, text.kernel?, code))).collect();
    let text_of = |code: &Code| match &disassembler {
        Some(disassembler) => disassembler.text(&code.cubin),
        None => Ok(String::from_utf8_lossy(&code.ptx).trim_end_matches('\0').to_string()),
    };
    let texts: Vec<String> = kernels.iter().map(|(_, _, code)| text_of(code)).collect::<Result<_, _>>()?;
    let mut all = String::new();
    for ((kernel, number, _), text) in kernels.iter().zip(texts) {
        let own = &plan.entries[kernel.entry];
        let sizes: Vec<String> = own.sizes.iter().map(|(name, size)| format!("{name}={size}")).collect();
        let name = [vec![own.name.clone()], sizes].concat().join(" ");
        let _ = writeln!(all, "// --- {name} [{number}] {}", own.schedule.kernels[*number].name);
        for launch in &kernel.launches {
            let _ = writeln!(all, "// launch: {}, {} x {} threads", launch.function, launch.grid, launch.block);
        }
        all += text.trim_matches('\n');
        all += "\n\n";
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use gcc_gan::exec::cuda::Resources;

    fn function(name: &str, architecture: &str, local_bytes: u64, static_shared_bytes: u64) -> FunctionResources {
        FunctionResources {
            entry: "train_step".into(),
            sizes: vec![("batch".into(), 96)],
            kernel: Some(3),
            function: name.into(),
            architecture: architecture.into(),
            resources: Resources { registers: 168, static_shared_bytes, local_bytes },
            dynamic_shared_bytes: 4096,
        }
    }

    #[test]
    fn what_uses_local_memory_is_named_for_each_architecture() {
        let functions = [
            function("a", "sm_80", 0, 0),
            function("b", "sm_80", 24, 0),
            function("a", "sm_90", 8, 0),
            function("b", "sm_90", 16, 0),
            function("a", "sm_120", 0, 0),
        ];
        assert_eq!(
            spilling(&functions),
            [
                "on sm_80, a kernel spills registers to local memory, or keeps arrays there: b of train_step (24 bytes a \
                 thread)",
                "on sm_90, 2 kernels spill registers to local memory, or keep arrays there: a of train_step (8 bytes a \
                 thread), b of train_step (16 bytes a thread)",
            ]
        );
        assert!(spilling(&functions[..1]).is_empty());
    }

    #[test]
    fn the_table_is_of_the_first_architecture() {
        let functions = vec![function("a", "sm_80", 24, 128), function("b", "sm_90", 0, 0)];
        let (compiler, runs_on) = ("NVRTC 12.8".to_string(), vec!["sm_80".to_string(), "sm_90a".to_string()]);
        let text = Made::Code { compiler, runs_on, bytes: 1 << 20, functions }.text();
        assert!(text.contains("1.0 MiB by NVRTC 12.8: sm_80, sm_90a\n\ntrain_step batch=96 on sm_80"), "{text}");
        let (table, others) = text.trim_end().rsplit_once("\n\n").unwrap();
        assert_eq!(others, "those on the other architectures: --json");
        let row: Vec<&str> = table.lines().last().unwrap().split_whitespace().collect();
        assert_eq!(row, ["3", "a", "168", "128", "+", "4096", "24"], "{text}");
        // What is no kernel of the plan's has a table of its own, and says what it is.
        let gather = FunctionResources { kernel: None, ..function("gather", "sm_80", 0, 0) };
        let functions = vec![function("a", "sm_80", 0, 0), gather];
        let code = Made::Code { compiler: "NVRTC 12.8".into(), runs_on: Vec::new(), bytes: 1, functions };
        let heading =
            "\n\nwhat begins and ends a run of train_step batch=96 on examples that the GPU keeps, on sm_80, ";
        assert!(code.text().contains(heading), "{}", code.text());
        let none = Made::None { missing: "no compiler".into() }.text();
        assert_eq!(none, "\ndevice code    none: no compiler\n");
    }
}
