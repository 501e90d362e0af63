//! Pictures of graphs and schedules as SVG, for print and for pages that run no script.

use super::layered::{Layout, Point, layered};
use super::{COLOURS, Colour, Group, by_name, condense, group_path, kernel_core, value_count, visible};
use crate::ir::{Graph, NodeId, Op};
use crate::kernel::body::BufferId;
use crate::kernel::schedule::{BufferRole, Schedule};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt::Write as _;

/// How much of a graph is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// A box for each layer, loss and update.
    Layers,
    /// A box for each node, those of a layer together.
    Nodes,
}

#[derive(Debug, Clone)]
struct Box {
    lines: Vec<String>,
    colour: Colour,
    /// Shown where the pointer rests.
    title: String,
    groups: Vec<Group>,
}

/// Boxes in groups, and the arrows between them.
#[derive(Debug, Default)]
struct Picture {
    boxes: Vec<Box>,
    arrows: BTreeSet<(usize, usize)>,
}

/// A graph at any stage.
pub fn graph_svg(graph: &Graph, detail: Detail) -> String {
    let picture = match detail {
        Detail::Layers => layers(graph),
        Detail::Nodes => nodes(graph),
    };
    render(&graph.name, &picture)
}

/// Kernels, those of a call together, with an arrow for each value that one leaves for another. `graph` is what was
/// scheduled.
pub fn schedule_svg(name: &str, schedule: &Schedule, graph: &Graph) -> String {
    let mut picture = Picture::default();
    let mut writer: HashMap<BufferId, usize> = HashMap::new();
    let read: HashSet<BufferId> = schedule.kernels.iter().flat_map(|kernel| kernel.reads.iter().copied()).collect();
    for (index, buffer) in schedule.buffers.iter().enumerate() {
        if let BufferRole::Input(input) = &buffer.role
            && read.contains(&BufferId::new(index))
            && buffer.elements() > 2
        {
            let ty = format!("{}[{}]", buffer.dtype, sizes(&buffer.shape));
            writer.insert(BufferId::new(index), picture.boxes.len());
            picture.boxes.push(Box {
                lines: vec![input.clone(), ty.clone()],
                colour: Colour::Leaf,
                title: format!("input {input}: {ty}"),
                groups: Vec::new(),
            });
        }
    }
    let by_name = by_name(graph);
    for (position, kernel) in schedule.kernels.iter().enumerate() {
        let core = kernel_core(graph, &by_name, kernel).map(|id| &graph.node(id).origin);
        let mut groups = core.map_or(Vec::new(), |origin| group_path(&origin.scope, &origin.role));
        groups.truncate(1);
        let this = picture.boxes.len();
        let lines = vec![
            format!("{position} {}", kernel.name),
            format!("{}, {}", kernel.kind().name(), counted(value_count(kernel), "value")),
        ];
        let title = kernel.nodes.join("\n");
        picture.boxes.push(Box {
            lines,
            colour: core.map_or(Colour::Forward, |o| Colour::of_role(&o.role)),
            title,
            groups,
        });
        picture.arrows.extend(kernel.reads.iter().filter_map(|buffer| Some((*writer.get(buffer)?, this))));
        writer.extend(kernel.writes.iter().map(|&buffer| (buffer, this)));
    }
    for output in &schedule.outputs {
        if let Some(&from) = writer.get(&output.buffer) {
            picture.arrows.insert((from, picture.boxes.len()));
            picture.boxes.push(result(&output.name));
        }
    }
    render(name, &picture)
}

fn layers(graph: &Graph) -> Picture {
    let parts = condense(graph);
    let mut picture = Picture::default();
    for part in &parts {
        let node = part.result(graph);
        let is_input = matches!(graph.op(node), Op::Input { .. });
        let scope = part.name.rsplit_once('/').map_or("", |(scope, _)| scope);
        let mut groups = if is_input { Vec::new() } else { group_path(scope, &part.role) };
        groups.truncate(1);
        let last = part.name.rsplit('/').next().unwrap_or(&part.name);
        let size = if part.members.len() > 1 { format!(", {} nodes", part.members.len()) } else { String::new() };
        picture.boxes.push(Box {
            lines: vec![last.to_string(), format!("{}{size}", graph.ty(node))],
            colour: if is_input { Colour::Leaf } else { Colour::of_role(&part.role) },
            title: part.name.clone(),
            groups,
        });
    }
    for (to, part) in parts.iter().enumerate() {
        picture.arrows.extend(part.operands.iter().map(|&from| (from, to)));
    }
    let part_of: HashMap<NodeId, usize> =
        parts.iter().enumerate().flat_map(|(i, part)| part.members.iter().map(move |&id| (id, i))).collect();
    for output in &graph.outputs {
        if let Some(&from) = part_of.get(&output.node) {
            picture.arrows.insert((from, picture.boxes.len()));
            picture.boxes.push(result(&output.name));
        }
    }
    picture
}

fn nodes(graph: &Graph) -> Picture {
    let mut picture = Picture::default();
    let mut drawn: HashMap<NodeId, usize> = HashMap::new();
    let is_leaf = |id: NodeId| matches!(graph.op(id), Op::Input { .. } | Op::State { .. } | Op::Constant { .. });
    // A leaf stands in every group that uses it: arrows from one corner to all others would hide the rest.
    let mut leaves: BTreeMap<(String, String), usize> = BTreeMap::new();
    for id in graph.topological() {
        let node = graph.node(id);
        if is_leaf(id) {
            continue;
        }
        let this = picture.boxes.len();
        let groups = group_path(&node.origin.scope, &node.origin.role);
        let (short, op) = (node.name.rsplit('/').next().unwrap_or(&node.name), node.op.name());
        let first = if short.starts_with(op) { short.to_string() } else { format!("{short} = {op}") };
        picture.boxes.push(Box {
            lines: vec![first, node.ty.to_string()],
            colour: Colour::of_role(&node.origin.role),
            title: node.name.clone(),
            groups: groups.clone(),
        });
        drawn.insert(id, this);
        for operand in graph.operands(id) {
            let from = match drawn.get(&operand) {
                Some(&from) => from,
                None => {
                    let key = (graph.node(operand).name.clone(), groups.last().map_or(String::new(), |g| g.id.clone()));
                    *leaves.entry(key).or_insert_with(|| {
                        picture.boxes.push(leaf(graph, operand, &groups));
                        picture.boxes.len() - 1
                    })
                }
            };
            picture.arrows.insert((from, this));
        }
    }
    for output in &graph.outputs {
        if let Some(&from) = drawn.get(&output.node) {
            picture.arrows.insert((from, picture.boxes.len()));
            picture.boxes.push(result(&output.name));
        }
    }
    picture
}

fn leaf(graph: &Graph, id: NodeId, groups: &[Group]) -> Box {
    let node = graph.node(id);
    let lines = match &node.op {
        Op::Constant { value, .. } => vec![value.to_string()],
        _ => vec![
            node.name.rsplit('/').next().unwrap_or(&node.name).to_string(),
            format!("{} {}", node.op.name(), node.ty),
        ],
    };
    Box { lines, colour: Colour::Leaf, title: format!("{}: {}", node.name, node.ty), groups: groups.to_vec() }
}

fn result(name: &str) -> Box {
    Box {
        lines: vec![name.to_string(), "output".into()],
        colour: Colour::Result,
        title: format!("output {name}"),
        groups: Vec::new(),
    }
}

fn sizes(shape: &[usize]) -> String {
    shape.iter().map(usize::to_string).collect::<Vec<_>>().join(",")
}

fn counted(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

// Layout: groups from the inside out.

const PAD: f64 = 12.0;
const HEAD: f64 = 22.0;
const LINE: f64 = 14.0;
const MAX_CHARS: usize = 40;

/// A box or a group of them, in a tree.
struct Tree {
    /// The group's label and colour; of a box, its index.
    content: Result<usize, (String, Colour)>,
    parent: usize,
    children: Vec<usize>,
    size: (f64, f64),
    layout: Option<Layout>,
    /// Arrows between children, by their position among them.
    arrows: Vec<(usize, usize)>,
}

impl Tree {
    fn new(content: Result<usize, (String, Colour)>, parent: usize) -> Tree {
        Tree { content, parent, children: Vec::new(), size: (0.0, 0.0), layout: None, arrows: Vec::new() }
    }
}

/// The tree of a picture; its root is the first.
fn tree(picture: &Picture) -> Vec<Tree> {
    let mut all = vec![Tree::new(Err((String::new(), Colour::Leaf)), 0)];
    let mut groups: BTreeMap<&str, usize> = BTreeMap::new();
    let mut at = Vec::new();
    for (index, bx) in picture.boxes.iter().enumerate() {
        let mut parent = 0;
        for group in &bx.groups {
            parent = *groups.entry(&group.id).or_insert_with(|| {
                all.push(Tree::new(Err((group.label.clone(), bx.colour)), parent));
                let this = all.len() - 1;
                all[parent].children.push(this);
                this
            });
        }
        all.push(Tree::new(Ok(index), parent));
        let this = all.len() - 1;
        all[parent].children.push(this);
        at.push(this);
    }
    // An arrow is drawn in the innermost group around both ends, between the children there that hold them.
    let path = |mut node: usize| {
        let mut path = vec![node];
        while node != 0 {
            node = all[node].parent;
            path.push(node);
        }
        path.reverse();
        path
    };
    let mut arrows: BTreeSet<(usize, usize, usize)> = BTreeSet::new();
    for &(from, to) in &picture.arrows {
        let (a, b) = (path(at[from]), path(at[to]));
        let shared = a.iter().zip(&b).take_while(|(x, y)| x == y).count();
        if let (Some(&from), Some(&to)) = (a.get(shared), b.get(shared)) {
            arrows.insert((a[shared - 1], from, to));
        }
    }
    let mut position = vec![0; all.len()];
    all.iter().for_each(|node| node.children.iter().enumerate().for_each(|(i, &child)| position[child] = i));
    for (group, from, to) in arrows {
        let arrow = (position[from], position[to]);
        all[group].arrows.push(arrow);
    }
    all
}

/// Lays out a group; its size and that of all in it are known then.
fn lay_out(all: &mut Vec<Tree>, picture: &Picture, at: usize) {
    if let Ok(index) = all[at].content {
        let lines = &picture.boxes[index].lines;
        let width = lines
            .iter()
            .enumerate()
            .map(|(i, line)| text_width(&clip(line), if i == 0 { 12.0 } else { 10.5 }))
            .fold(30.0, f64::max);
        all[at].size = ((width + 18.0).ceil(), if lines.len() > 1 { 38.0 } else { 24.0 });
        return;
    }
    for child in all[at].children.clone() {
        lay_out(all, picture, child);
    }
    let sizes: Vec<(f64, f64)> = all[at].children.iter().map(|&child| all[child].size).collect();
    let layout = layered(&sizes, &all[at].arrows);
    let label = match &all[at].content {
        Err((label, _)) => text_width(label, 11.0) + 20.0,
        Ok(_) => 0.0,
    };
    let width = layout.width.max(label);
    all[at].size =
        if at == 0 { (layout.width, layout.height) } else { (width + 2.0 * PAD, layout.height + HEAD + PAD) };
    all[at].layout = Some(layout);
}

// Drawing

const STYLE: &str = "text{font-family:Helvetica,Arial,'DejaVu Sans',sans-serif;fill:#1b1f24}\
.r{stroke-dasharray:3 2}.g{fill-opacity:.28;stroke-opacity:.6}\
.t{font-size:12px;text-anchor:middle}.s{font-size:10.5px;text-anchor:middle;fill:#5c6672}.h{font-size:11px}\
path{fill:none;stroke:#8b94a0;stroke-width:1.1}";

fn class(colour: Colour) -> &'static str {
    match colour {
        Colour::Forward => "f",
        Colour::Backward => "b",
        Colour::Optimiser => "o",
        Colour::Leaf => "l",
        Colour::Result => "r",
    }
}

fn render(name: &str, picture: &Picture) -> String {
    const MARGIN: f64 = 16.0;
    const FOOT: f64 = 34.0;
    let mut all = tree(picture);
    lay_out(&mut all, picture, 0);
    let legend: Vec<(Colour, &str)> = (COLOURS.iter())
        .filter(|row| picture.boxes.iter().any(|b| b.colour == row.colour))
        .map(|row| (row.colour, row.name))
        .collect();
    let colours: String = (COLOURS.iter())
        .map(|row| format!(".{}{{fill:{};stroke:{}}}", class(row.colour), row.fill, row.stroke))
        .collect();
    let legend_width: f64 = legend.iter().map(|(_, text)| text_width(text, 11.0) + 36.0).sum();
    let (width, height) = (all[0].size.0.max(legend_width) + 2.0 * MARGIN, all[0].size.1 + 2.0 * MARGIN + FOOT);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {w} {h}\" width=\"{w}\" height=\"{h}\" role=\"img\">\n\
         <title>{}</title>\n<style>{colours}{STYLE}</style>\n\
         <defs><marker id=\"a\" viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" markerWidth=\"7\" markerHeight=\"7\" orient=\"auto\">\
         <path d=\"M0,.5L8,4L0,7.5z\" style=\"fill:#8b94a0;stroke:none\"/></marker></defs>\n\
         <rect width=\"{w}\" height=\"{h}\" fill=\"#fff\"/>\n",
        escape(name),
        w = number(width),
        h = number(height)
    );
    draw(&mut out, &all, picture, 0, Point { x: (width - all[0].size.0) / 2.0, y: MARGIN });
    let mut x = MARGIN;
    for (colour, text) in legend {
        let y = height - MARGIN - 8.0;
        let _ = writeln!(
            out,
            "<rect class=\"{}\" x=\"{}\" y=\"{}\" width=\"14\" height=\"12\" rx=\"3\"/>",
            class(colour),
            number(x),
            number(y - 10.0)
        );
        let _ = writeln!(out, "<text class=\"h\" x=\"{}\" y=\"{}\">{text}</text>", number(x + 19.0), number(y));
        x += text_width(text, 11.0) + 36.0;
    }
    out.push_str("</svg>\n");
    out
}

/// Draws what is in a group whose upper left corner is at `corner`.
fn draw(out: &mut String, all: &[Tree], picture: &Picture, at: usize, corner: Point) {
    let Some(layout) = &all[at].layout else { return };
    let inner = if at == 0 { (0.0, 0.0) } else { ((all[at].size.0 - layout.width) / 2.0, HEAD) };
    let origin = Point { x: corner.x + inner.0, y: corner.y + inner.1 };
    for points in layout.arrows.iter().filter(|points| !points.is_empty()) {
        let shifted: Vec<Point> = points.iter().map(|p| Point { x: p.x + origin.x, y: p.y + origin.y }).collect();
        let _ = writeln!(out, "<path d=\"{}\" marker-end=\"url(#a)\"/>", curve(&shifted));
    }
    for (&child, centre) in all[at].children.iter().zip(&layout.boxes) {
        let (w, h) = all[child].size;
        let (x, y) = (origin.x + centre.x - w / 2.0, origin.y + centre.y - h / 2.0);
        let place = format!("x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"", number(x), number(y), number(w), number(h));
        match &all[child].content {
            Err((label, colour)) => {
                let _ = writeln!(out, "<rect class=\"{} g\" {place} rx=\"8\"/>", class(*colour));
                let _ = writeln!(
                    out,
                    "<text class=\"h\" x=\"{}\" y=\"{}\">{}</text>",
                    number(x + 9.0),
                    number(y + 15.0),
                    escape(label)
                );
                draw(out, all, picture, child, Point { x, y });
            }
            Ok(index) => {
                let bx = &picture.boxes[*index];
                let radius = if matches!(bx.colour, Colour::Leaf | Colour::Result) { 11 } else { 4 };
                let _ = writeln!(
                    out,
                    "<g><title>{}</title><rect class=\"{}\" {place} rx=\"{radius}\"/>",
                    escape(&bx.title),
                    class(bx.colour)
                );
                for (i, line) in bx.lines.iter().enumerate() {
                    let base = if bx.lines.len() > 1 { y + 16.0 + LINE * i as f64 } else { y + h / 2.0 + 4.0 };
                    let style = if i == 0 { "t" } else { "s" };
                    let _ = writeln!(
                        out,
                        "<text class=\"{style}\" x=\"{}\" y=\"{}\">{}</text>",
                        number(x + w / 2.0),
                        number(base),
                        escape(&clip(line))
                    );
                }
                out.push_str("</g>\n");
            }
        }
    }
}

/// A path that leaves and enters every point upright.
fn curve(points: &[Point]) -> String {
    let mut d = format!("M{},{}", number(points[0].x), number(points[0].y));
    for pair in points.windows(2) {
        let (a, b) = (pair[0], pair[1]);
        let middle = number((a.y + b.y) / 2.0);
        let end = format!("{},{}", number(b.x), number(b.y));
        if (a.x - b.x).abs() < 0.5 {
            let _ = write!(d, "L{end}");
        } else {
            let _ = write!(d, "C{},{middle} {},{middle} {end}", number(a.x), number(b.x));
        }
    }
    d
}

/// One digit behind the point, which no screen or printer tells from more.
fn number(x: f64) -> String {
    let text = format!("{x:.1}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_string)
}

/// The start and end of a name that is too long.
fn clip(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    if chars.len() <= MAX_CHARS {
        return text.to_string();
    }
    let (head, tail) = (MAX_CHARS * 11 / 20, MAX_CHARS - MAX_CHARS * 11 / 20 - 1);
    chars[..head].iter().chain(&['…']).chain(&chars[chars.len() - tail..]).collect()
}

/// The width of a text in a font like Helvetica, rather too much than too little: fonts differ, and boxes must hold
/// their names in all of them.
fn text_width(text: &str, size: f64) -> f64 {
    let em = |c: char| match c {
        'i' | 'j' | 'l' | '.' | ',' | ':' | ';' | '\'' | '|' | '!' => 0.31,
        'f' | 'r' | 't' | 'I' | '(' | ')' | '[' | ']' | '/' | ' ' | '-' => 0.39,
        'm' | 'w' | 'M' | 'W' | '…' => 0.95,
        'A'..='Z' | '∂' => 0.72,
        _ => 0.61,
    };
    text.chars().map(em).sum::<f64>() * size
}

/// XML has no place for control characters.
fn escape(text: &str) -> String {
    visible(text).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::declare::builtin;
    use crate::inspect::{Observed, observe};

    #[test]
    fn pictures_of_a_small_program() {
        let text = r#"Program(
            name: "small",
            networks: { "net": Network(input: [3], layers: [Dense(2), Relu()]) },
            entries: { "train_step": Entry(
                inputs: { "x": Tensor([2, 3]) },
                steps: [Let("loss", Mean(Call("net", "x", Training))), Minimise("loss", "net", Sgd(lr: 0.1))],
                outputs: ["loss"],
            ) },
        )"#;
        let observed = observe("small.ron", text, &[], None).unwrap();
        let history = observed.history("train_step").unwrap();
        insta::assert_snapshot!("declared", graph_svg(&history.stages[0].1, Detail::Layers));
        let schedule = &observed.plan.entry("train_step").unwrap().schedule;
        insta::assert_snapshot!("kernels", schedule_svg("train_step", schedule, history.last()));
    }

    /// The same bytes each time, at every stage.
    #[test]
    fn pictures_are_deterministic() {
        let twice = || observe("dcgan", builtin::text("dcgan").unwrap(), &[], None).unwrap();
        let (a, b) = (twice(), twice());
        let history = |o| Observed::history(o, "train_step").unwrap().clone();
        for ((stage, x), (_, y)) in history(&a).stages.iter().zip(&history(&b).stages) {
            for detail in [Detail::Layers, Detail::Nodes] {
                let picture = graph_svg(x, detail);
                assert_eq!(picture, graph_svg(y, detail), "{stage}");
            }
        }
        let (s, g) = (&a.plan.entry("train_step").unwrap().schedule, history(&a));
        assert_eq!(schedule_svg("s", s, g.last()), schedule_svg("s", s, history(&b).last()));
    }
}
