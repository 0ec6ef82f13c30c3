//! The steps of a request, each alone, by the clock. `benches/instructions` counts what the same steps cost.

mod fixture;
#[path = "fixture/steps.rs"]
mod steps;

use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BatchSize, BenchmarkGroup, Criterion, criterion_group, criterion_main};

use crate::steps::Measure;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn hot_path(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("hot path");
    group.measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_millis(500)).sample_size(50);
    steps::each(&mut group);
    group.finish();
}

impl Measure for BenchmarkGroup<'_, WallTime> {
    fn step<O>(&mut self, name: &'static str, mut run: impl FnMut() -> O) {
        self.bench_function(name, |bencher| bencher.iter(&mut run));
    }

    fn step_on<I, O>(&mut self, name: &'static str, mut make: impl FnMut() -> I, mut run: impl FnMut(I) -> O) {
        self.bench_function(name, |bencher| bencher.iter_batched(&mut make, &mut run, BatchSize::SmallInput));
    }
}

criterion_group!(benches, hot_path);
criterion_main!(benches);
