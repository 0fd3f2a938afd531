//! Building a batch allocates per batch, never per example: the number of allocations is the same for few rows and for
//! many. A test binary of its own, because it counts all allocations of the process.

#[path = "common/mod.rs"]
mod common;

use std::sync::Arc;

use common::Workshop;
use lambert::data::{Batch, Dataset, ExampleConfig, ExampleMode, PreparedData, SpanMask, Split};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

const ROWS: usize = 32;
/// The tensors of a batch, the lists of its packing, and the allocations of sharing work between threads.
const MOST: u64 = 24;

/// Returns the smallest number of allocations of `make` over several calls: a thread queue may grow, and the table of
/// the next epoch is built in the background.
fn allocations(make: impl Fn() -> Batch) -> u64 {
    let count = || {
        let before = dhat::HeapStats::get().total_blocks;
        let batch = make();
        let after = dhat::HeapStats::get().total_blocks;
        assert!(batch.real_tokens() > 0);
        after - before
    };
    // Warm-up: afterwards every thread has built the longest of these examples.
    (0..20).for_each(|_| drop(make()));
    (0..20).map(|_| count()).min().expect("it is made")
}

#[test]
fn allocations_per_batch_are_independent_of_its_rows() {
    let workshop = Workshop::new();
    let prepared = Arc::new(PreparedData::open(&workshop.path("data")).expect("it was just prepared"));
    let _counting = dhat::Profiler::builder().testing().build();
    let tokens = ExampleConfig::bert(32, 5);
    let words = ExampleConfig { whole_word_mask: true, ..tokens.clone() };
    let spans = ExampleConfig { span_mask: Some(SpanMask::default()), ..tokens.clone() };
    for mode in
        [ExampleMode::NextSentence, ExampleMode::SentenceOrder, ExampleMode::FullSentences, ExampleMode::DocSentences]
    {
        for masked in [&tokens, &words, &spans] {
            let config = ExampleConfig { mode, ..masked.clone() };
            let examples = Dataset::new(prepared.clone(), Split::Train, config.clone()).expect("there are documents");
            assert!(examples.epoch_len(0) >= 8 * ROWS as u64, "{} examples", examples.epoch_len(0));
            let plain = |rows| allocations(|| examples.batch(0, rows).expect("the shards are whole"));
            let packed =
                |rows| allocations(|| examples.packed_batch(0, rows, 3, 0..2, 2).expect("the shards are whole"));
            for (form, few, many) in
                [("plain", plain(ROWS), plain(8 * ROWS)), ("packed", packed(ROWS), packed(8 * ROWS))]
            {
                assert!(
                    many == few && few <= MOST,
                    "{few} allocations for {ROWS} {form} rows, {many} for {}: {config:?}",
                    8 * ROWS
                );
            }
        }
    }
}
