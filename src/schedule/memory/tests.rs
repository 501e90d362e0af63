use super::instances::{evaluation, from_csv, loose_packing, perfect_packing, training_step};
use super::*;
use crate::plan::overlap::{Placement, check_no_overlap};
use proptest::prelude::*;

fn range(start: usize, end: usize, size: usize) -> LiveRange {
    LiveRange { start, end, size }
}

fn options(alignment: usize, max_steps: u64) -> PlannerOptions {
    PlannerOptions { alignment, max_steps }
}

/// Plans, and checks that the result is sound.
fn plan(buffers: &[LiveRange], options: &PlannerOptions) -> MemoryPlan {
    let plan = plan_memory(buffers, options).unwrap();
    let placements: Vec<Placement> = buffers
        .iter()
        .zip(&plan.offsets)
        .map(|(b, &offset)| Placement { start: b.start, end: b.end, offset, size: b.size })
        .collect();
    check_no_overlap(&placements, plan.arena_size).unwrap();
    assert_eq!(plan.offsets.len(), buffers.len());
    assert!(plan.arena_size >= plan.lower_bound);
    assert_eq!(plan.arena_size % options.alignment, 0);
    assert!(plan.offsets.iter().all(|o| o % options.alignment == 0));
    plan
}

/// The largest live sum, position by position.
fn lower_bound_by_definition(buffers: &[LiveRange], alignment: usize) -> usize {
    let end = buffers.iter().map(|b| b.end).max().unwrap_or(0);
    let live = |t: usize| buffers.iter().filter(move |b| b.start <= t && t < b.end);
    let aligned = |b: &LiveRange| b.size.next_multiple_of(alignment);
    let largest = buffers.iter().map(aligned).max().unwrap_or(0);
    let loads = (0..end).map(|t| live(t).map(aligned).sum());
    loads.max().unwrap_or(0).max(largest)
}

#[test]
fn nothing_to_place() {
    let empty = plan(&[], &PlannerOptions::default());
    assert_eq!((empty.arena_size, empty.lower_bound), (0, 0));
    assert_eq!(empty.ratio(), 1.0);
    let never_live =
        plan(&[range(3, 3, 100), range(0, 9, 0), range(usize::MAX, usize::MAX, 1)], &PlannerOptions::default());
    assert_eq!(never_live.offsets, [0, 0, 0]);
    assert_eq!(never_live.arena_size, 128, "room for the largest");
}

#[test]
fn a_chain_alternates_between_two_places() {
    let chain: Vec<LiveRange> = (0..100).map(|i| range(i, i + 2, 1000)).collect();
    let plan = plan(&chain, &PlannerOptions::default());
    assert_eq!(plan.arena_size, 2 * 1024);
    assert_eq!(plan.steps, 0, "greedy is enough");
}

#[test]
fn parts_that_share_no_time_share_the_arena() {
    let buffers = [range(0, 2, 64), range(2, 5, 128), range(5, 6, 32)];
    assert_eq!(plan(&buffers, &PlannerOptions::default()).offsets, [0, 0, 0]);
}

#[test]
fn any_alignment_holds_powers_of_two_or_not() {
    let buffers = [range(0, 2, 1), range(0, 2, 100), range(1, 3, 97)];
    for alignment in [1, 3, 64, 96, 4096] {
        let plan = plan(&buffers, &options(alignment, 1_000_000));
        let bound = lower_bound_by_definition(&buffers, alignment);
        assert_eq!((plan.arena_size, plan.lower_bound), (bound, bound));
    }
}

#[test]
fn ill_formed_input_is_an_error() {
    let one = [range(0, 1, 1)];
    assert_eq!(plan_memory(&one, &options(0, 0)), Err(MemoryError::ZeroAlignment));
    assert_eq!(
        plan_memory(&[range(0, 1, 1), range(2, 1, 1)], &PlannerOptions::default()),
        Err(MemoryError::ReversedRange { buffer: 1, start: 2, end: 1 })
    );
    let too_large = |buffer, size| Err(MemoryError::TooLarge { buffer, size });
    for size in [usize::MAX, usize::MAX - 63, usize::MAX / 4 + 1] {
        let huge = [range(0, 1, 64), range(1, 2, size)];
        assert_eq!(plan_memory(&huge, &PlannerOptions::default()), too_large(1, size));
    }
    // Rounding up alone overflows.
    assert_eq!(plan_memory(&one, &options(usize::MAX, 0)), too_large(0, 1));
    // Sizes whose sum overflows, each fine alone.
    let many = [range(0, 1, usize::MAX / 8); 3];
    assert_eq!(plan_memory(&many, &options(1, 0)), too_large(2, usize::MAX / 8));
}

#[test]
fn the_largest_allowed_sizes_do_not_overflow() {
    // Greedy misses here, so that the search runs on them too.
    let unit = usize::MAX / 64;
    let scaled: Vec<LiveRange> =
        perfect_packing(1, 12, 100, 12, 1).into_iter().map(|b| range(b.start, b.end, b.size * (unit / 12))).collect();
    plan(&scaled, &options(1, 1_000_000));
    plan(&[range(0, usize::MAX, usize::MAX / 4)], &options(1, 1_000_000));
}

#[test]
fn the_search_packs_what_greedy_orders_do_not() {
    for seed in 0..4 {
        let buffers = perfect_packing(seed, 200, 1 << 20, 1 << 20, 1024);
        let greedy = plan(&buffers, &options(1, 0));
        assert_eq!(greedy.lower_bound, 1 << 20);
        assert!(greedy.ratio() > 1.05, "seed {seed} is too easy a test");
        let searched = plan(&buffers, &PlannerOptions { alignment: 1, ..PlannerOptions::default() });
        assert!(searched.ratio() <= 1.01, "seed {seed}: {}", searched.ratio());
    }
}

#[test]
fn hard_packings_take_few_steps() {
    for (seed, count) in [(0, 300), (0, 400), (1, 300), (1, 400)] {
        let buffers = perfect_packing(seed, count, 1 << 20, 1 << 20, 1024);
        let plan = plan(&buffers, &options(1024, 12_000_000));
        assert_eq!(plan.arena_size, 1 << 20, "{count} buffers from seed {seed}");
    }
}

#[test]
fn a_planted_packing_is_found_where_the_bound_does_not_tell() {
    let buffers = loose_packing(1, 150, 1 << 20, 1 << 20, 1024, 8);
    let greedy = plan(&buffers, &options(1024, 0));
    assert!(greedy.arena_size > 1 << 20, "too easy a test");
    let searched = plan(&buffers, &options(1024, 30_000_000));
    assert!(searched.lower_bound < 1 << 20);
    assert!(searched.arena_size <= 1 << 20, "{} bytes", searched.arena_size);
}

#[test]
fn large_inputs_are_searched_where_that_is_quick() {
    let short = evaluation(1, 5000);
    assert!(plan(&short, &options(64, 0)).ratio() > 1.01, "too easy a test");
    let plan = plan(&short, &PlannerOptions::default());
    assert_eq!(plan.arena_size, plan.lower_bound);
    assert!(plan.steps < 10_000_000, "{}", plan.steps);
}

#[test]
fn a_search_too_long_for_its_budget_is_not_begun() {
    // Thousands live at once: the search could not place all even once.
    let nested = training_step(1, 5000);
    let plan = plan(&nested, &PlannerOptions::default());
    assert!(plan.arena_size > plan.lower_bound, "too easy a test");
    assert!(plan.steps < 20_000_000, "{}", plan.steps);
    assert!(plan.ratio() < 1.01, "{}", plan.ratio());
}

#[test]
fn instances_are_read_from_csv() {
    let text = "id,lower,upper,size\n1,0,5,64\n\n2, 3, 9, 128\n";
    assert_eq!(from_csv(text), Ok(vec![range(0, 5, 64), range(3, 9, 128)]));
    assert_eq!(from_csv("size,upper,lower\n64,5,1"), Ok(vec![range(1, 5, 64)]), "columns go by name");
    let error = |text: &str| from_csv(text).unwrap_err();
    assert_eq!(error(""), "line 1: expected a header with the columns lower, upper and size");
    assert_eq!(error("id,lower,size\n"), "line 1: no column `upper` in the header `id,lower,size`");
    assert_eq!(error("lower,upper,size\n0,1,2\n0,x,2\n"), "line 3: `x` is not a whole number for `upper`");
    assert_eq!(error("lower,upper,size\n0,1\n"), "line 2: `` is not a whole number for `size`");
}

/// The figures of the published instances can be repeated: with `benchmarks/challenging` of MiniMalloc's repository in
/// a folder, `MINIMALLOC_INSTANCES=folder cargo test --release --lib published -- --ignored --nocapture`.
#[test]
#[ignore = "needs the published instances: MINIMALLOC_INSTANCES names their folder"]
fn the_published_instances_fit_their_capacity() {
    let folder = std::env::var("MINIMALLOC_INSTANCES").expect("MINIMALLOC_INSTANCES names a folder of CSV files");
    let files = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{folder}: {e}"));
    let mut paths: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|e| e == "csv"));
    paths.sort();
    assert!(!paths.is_empty(), "{folder} has no CSV files");
    let mut too_large = Vec::new();
    for path in paths {
        // NAME.CAPACITY.csv
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let capacity: usize = name.rsplit('.').next().unwrap().parse().expect("the capacity is in the file's name");
        let text = std::fs::read_to_string(&path).unwrap();
        let buffers = from_csv(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let time = std::time::Instant::now();
        let plan = plan(&buffers, &PlannerOptions::default());
        let seconds = time.elapsed().as_secs_f64();
        println!("{name}: {} buffers, {} bytes, {} steps, {seconds:.2} s", buffers.len(), plan.arena_size, plan.steps);
        if plan.arena_size > capacity {
            too_large.push(name);
        }
    }
    assert!(too_large.is_empty(), "above their capacity: {too_large:?}");
}

#[test]
fn equal_inputs_give_equal_plans_and_effort_is_bounded() {
    let buffers = perfect_packing(7, 120, 1000, 1 << 20, 64);
    let budget = 3_000_000;
    let first = plan(&buffers, &options(64, budget));
    assert_eq!(first, plan(&buffers, &options(64, budget)));
    // A step over the budget at most: one node of the tree.
    assert!(first.steps < budget + 100_000, "{}", first.steps);
}

#[test]
fn a_perfect_packing_fills_every_position() {
    let buffers = perfect_packing(3, 64, 50, 640, 10);
    assert_eq!(buffers.len(), 64);
    for t in 0..50 {
        let live = buffers.iter().filter(|b| b.start <= t && t < b.end);
        assert_eq!(live.map(|b| b.size).sum::<usize>(), 640);
    }
}

fn buffers() -> impl Strategy<Value = Vec<LiveRange>> {
    let buffer = (0usize..40, 0usize..12, 0usize..300);
    let buffer = buffer.prop_map(|(start, span, size)| range(start, start + span, size));
    prop::collection::vec(buffer, 0..40)
}

/// The height of the best placement: all orders of lowest-first stacking, which contain an optimum.
fn optimum(buffers: &[LiveRange]) -> usize {
    fn stack(buffers: &[LiveRange], placed: &mut Vec<(usize, usize)>, best: &mut usize) {
        let height = placed.iter().map(|&(i, o)| o + buffers[i].size).max();
        let height = height.unwrap_or(0);
        if height >= *best {
            return;
        }
        if placed.len() == buffers.len() {
            *best = height;
            return;
        }
        for i in 0..buffers.len() {
            if placed.iter().any(|&(j, _)| i == j) {
                continue;
            }
            let b = buffers[i];
            let below = placed.iter().filter(|&&(j, _)| buffers[j].start < b.end && b.start < buffers[j].end);
            let offset = below.map(|&(j, o)| o + buffers[j].size).max().unwrap_or(0);
            placed.push((i, offset));
            stack(buffers, placed, best);
            placed.pop();
        }
    }
    let mut best = usize::MAX;
    stack(buffers, &mut Vec::new(), &mut best);
    best
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn every_plan_is_sound(buffers in buffers(), alignment in 1usize..70) {
        let plan = plan(&buffers, &options(alignment, 300_000));
        prop_assert_eq!(plan.lower_bound, lower_bound_by_definition(&buffers, alignment));
    }

    #[test]
    fn small_plans_are_optimal(
        raw in prop::collection::vec((0usize..6, 1usize..5, 1usize..7), 1..7),
    ) {
        let buffers: Vec<_> = raw.into_iter().map(|(a, n, size)| range(a, a + n, size)).collect();
        let plan = plan(&buffers, &options(1, 10_000_000));
        prop_assert_eq!(plan.arena_size, optimum(&buffers));
    }
}
