//! A GPU that the host plays: it runs plans like any device, by their kernels' text.

use crate::emulate::launches;
use crate::host::Program;
use gcc_gan::exec::cuda::{KernelText, prelude, render};
use gcc_gan::exec::{Ceilings, Device, ExecError, Executor, KernelTiming, TensorMut, TensorRef};
use gcc_gan::kernel::access::ordered_strides;
use gcc_gan::kernel::cost::Multiplied;
use gcc_gan::kernel::schedule::{Buffer, BufferRole};
use gcc_gan::plan::{EntryPlan, Plan};
use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// Kernels of one program: more would take a compiler too much memory.
const KERNELS: usize = 150;

/// An entry's kernels in a program, by number.
type Place = (Arc<Program>, usize);

/// The device. Each entry runs twice, with the threads of a block in either order, and must come out the same.
#[derive(Default)]
pub struct Emulated {
    /// What was compiled, by its text.
    entries: Mutex<HashMap<String, Place>>,
    loaded: Mutex<Option<Arc<Plan>>>,
}

/// The text of an entry's kernels, whose names begin so.
fn kernels(entry: &EntryPlan, prefix: &str) -> Vec<KernelText> {
    let named = |kernel: &gcc_gan::kernel::body::Kernel| {
        let mut kernel = kernel.clone();
        kernel.name = format!("{prefix}{}", kernel.name);
        render(&kernel, &entry.schedule.buffers)
    };
    entry.schedule.kernels.iter().map(named).collect()
}

/// The same for the same entry, whatever its number.
fn key(entry: &EntryPlan) -> String {
    kernels(entry, "e").iter().map(|kernel| format!("{}{:?}", kernel.source, kernel.launches)).collect()
}

/// A program that runs the entry of a number on the arena in a file.
fn program(entries: &[&EntryPlan]) -> String {
    let mut text = format!("#include \"emulate.h\"\n{}\n", prelude());
    let mut cases = String::new();
    for (number, entry) in entries.iter().enumerate() {
        let mut body = String::new();
        for kernel in kernels(entry, &format!("e{number}_")) {
            text += &kernel.source;
            body += &launches(&kernel.launches);
        }
        let parameters = "std::vector<unsigned char>& arena, bool backwards";
        writeln!(text, "static void run_{number}({parameters}) {{\n(void)arena, (void)backwards;\n{body}}}").unwrap();
        writeln!(cases, "    case {number}: run_{number}(arena, backwards); break;").unwrap();
    }
    text + "int main(int, char** arguments) {
    FILE *in = fopen(arguments[1], \"rb\"), *out = fopen(arguments[2], \"wb\");
    fseek(in, 0, SEEK_END);
    std::vector<unsigned char> arena((size_t)ftell(in));
    rewind(in);
    emulation::transfer(in, arena.data(), arena.size(), false);
    const bool backwards = arguments[3][0] == 'b';
    switch (atoi(arguments[4])) {
" + &cases
        + "    default: return 5;
    }
    emulation::transfer(out, arena.data(), arena.size(), true);
    return fclose(out);
}
"
}

impl Emulated {
    /// The plan that was loaded last.
    pub fn loaded(&self) -> Option<Arc<Plan>> {
        self.loaded.lock().unwrap().clone()
    }

    /// Compiles the kernels of plans together, which takes less time than one by one; `false` where there is no compiler.
    pub fn prepare<'p>(&self, plans: impl IntoIterator<Item = &'p Arc<Plan>>) -> bool {
        let mut new: HashMap<String, &EntryPlan> = HashMap::new();
        for entry in plans.into_iter().flat_map(|plan| &plan.entries) {
            let key = key(entry);
            if !self.entries.lock().unwrap().contains_key(&key) {
                new.insert(key, entry);
            }
        }
        let mut new: Vec<(String, &EntryPlan)> = new.into_iter().collect();
        new.sort_by(|(a, _), (b, _)| a.cmp(b));
        let mut programs: Vec<Vec<(String, &EntryPlan)>> = Vec::new();
        let mut room = 0;
        for (key, entry) in new {
            if room == 0 {
                programs.push(Vec::new());
                room = KERNELS;
            }
            room = room.saturating_sub(entry.schedule.kernels.len());
            programs.last_mut().unwrap().push((key, entry));
        }
        let next = AtomicUsize::new(0);
        let compile = || {
            while let Some(entries) = programs.get(next.fetch_add(1, Ordering::Relaxed)) {
                let compiled = Program::new(&program(&entries.iter().map(|(_, entry)| *entry).collect::<Vec<_>>()));
                let Some(compiled) = compiled.map(Arc::new) else { return false };
                let places = entries.iter().enumerate().map(|(i, (key, _))| (key.clone(), (compiled.clone(), i)));
                self.entries.lock().unwrap().extend(places);
            }
            true
        };
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..threads).map(|_| scope.spawn(compile)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).fold(true, |all, one| all & one)
        })
    }
}

impl Device for Emulated {
    fn name(&self) -> String {
        "emulated GPU".to_string()
    }

    fn load(&self, plan: Arc<Plan>) -> Result<Box<dyn Executor>, ExecError> {
        if !self.prepare([&plan]) {
            return Err(ExecError::Unavailable { device: self.name(), what: "there is no compiler".into() });
        }
        *self.loaded.lock().unwrap() = Some(plan.clone());
        let entries = self.entries.lock().unwrap();
        let places = plan.entries.iter().map(|entry| entries[&key(entry)].clone()).collect();
        // What nobody wrote is not a number; state is zero.
        let mut arena = vec![0xff; plan.arena_bytes().max(1)];
        arena[..plan.state_layout.bytes].fill(0);
        Ok(Box::new(Running { plan, places, arena }))
    }

    fn ceilings(&self, _: &BTreeSet<Multiplied>) -> Result<Ceilings, ExecError> {
        Err(ExecError::Unsupported { device: self.name(), what: "it has no speed".into() })
    }
}

struct Running {
    plan: Arc<Plan>,
    places: Vec<Place>,
    arena: Vec<u8>,
}

/// Where each element of a row-major tensor lies in memory, whose dimensions are in an order.
fn elements(shape: &[usize], order: &[usize]) -> Vec<usize> {
    if order.is_empty() {
        return (0..shape.iter().product()).collect();
    }
    let strides = ordered_strides(shape, order);
    shape.iter().zip(&strides).fold(vec![0], |all, (&size, &stride)| {
        all.iter().flat_map(|&start| (0..size).map(move |i| start + i * stride as usize)).collect()
    })
}

impl Running {
    /// The state's place, its shape and the order of its dimensions.
    fn state(&self, state: usize) -> (usize, Vec<usize>, Vec<usize>) {
        let declared = &self.plan.states[state];
        self.kept(&declared.name, &declared.ty.shape)
    }

    fn kept(&self, name: &str, shape: &[usize]) -> (usize, Vec<usize>, Vec<usize>) {
        let layout = &self.plan.state_layout;
        (layout.offsets[name], shape.to_vec(), layout.orders.get(name).cloned().unwrap_or_default())
    }

    fn read(&self, (offset, shape, order): (usize, Vec<usize>, Vec<usize>), into: TensorMut) {
        let into = into.into_bytes();
        let elements = elements(&shape, &order);
        let size = into.len() / elements.len().max(1);
        for (here, there) in elements.into_iter().enumerate() {
            into[here * size..][..size].copy_from_slice(&self.arena[offset + there * size..][..size]);
        }
    }

    fn write(&mut self, (offset, shape, order): (usize, Vec<usize>, Vec<usize>), from: TensorRef) {
        let elements = elements(&shape, &order);
        let size = from.bytes().len() / elements.len().max(1);
        for (here, there) in elements.into_iter().enumerate() {
            self.arena[offset + there * size..][..size].copy_from_slice(&from.bytes()[here * size..][..size]);
        }
    }
}

fn place(buffer: &Buffer) -> (usize, Vec<usize>, Vec<usize>) {
    (buffer.offset, buffer.shape.to_vec(), buffer.order.clone())
}

impl Executor for Running {
    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn submit(&mut self, entry: usize, inputs: &[TensorRef]) -> Result<(), ExecError> {
        let plan = self.plan.clone();
        let own = &plan.entries[entry];
        for (declared, given) in own.inputs.iter().zip(inputs) {
            let is_it = |b: &&Buffer| matches!(&b.role, BufferRole::Input(name) if *name == declared.name);
            if let Some(buffer) = own.schedule.buffers.iter().find(is_it) {
                self.write(place(buffer), *given);
            }
        }
        let (program, number) = &self.places[entry];
        let lost = |problem| ExecError::Lost { device: "emulated GPU".into(), problem };
        let [forwards, backwards] = program.run(&self.arena, &[&number.to_string()]);
        self.arena = forwards.map_err(lost)?;
        if backwards.map_err(lost)? != self.arena {
            return Err(lost(format!("the results of `{}` depend on the order of threads", own.name)));
        }
        Ok(())
    }

    fn wait(&mut self) -> Result<(), ExecError> {
        Ok(())
    }

    fn profile(&mut self, entry: usize, inputs: &[TensorRef]) -> Result<Vec<KernelTiming>, ExecError> {
        self.submit(entry, inputs).map(|()| Vec::new())
    }

    fn read_output(&mut self, entry: usize, output: usize, into: TensorMut) -> Result<(), ExecError> {
        let schedule = &self.plan.entries[entry].schedule;
        self.read(place(&schedule.buffers[schedule.outputs[output].buffer.index()]), into);
        Ok(())
    }

    fn read_state(&mut self, state: usize, into: TensorMut) -> Result<(), ExecError> {
        self.read(self.state(state), into);
        Ok(())
    }

    fn write_state(&mut self, state: usize, from: TensorRef) -> Result<(), ExecError> {
        self.write(self.state(state), from);
        let plan = self.plan.clone();
        let declared = &plan.states[state];
        for (name, copy) in plan.state_layout.copies.iter().filter(|(_, copy)| copy.of == declared.name) {
            let rounded = copy.rounding.round(from.values().expect("copies are of f32"));
            self.write(self.kept(name, &declared.ty.shape), rounded.view());
        }
        Ok(())
    }
}
