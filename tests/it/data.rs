//! Examples from prepared data: the promises of create_pretraining_data, measured over many examples, and rows that are
//! independent of how a batch is divided.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use lambert::data::{
    Batch, DataError, Dataset, ExampleConfig, ExampleLayout, ExampleMode, MANIFEST, MANIFEST_FORMAT, Manifest,
    MaskShares, Masking, MaskingRamp, PrepareOptions, PreparedData, ReadCounts, SHARD_FORMAT, ShardBuilder, ShardEntry,
    ShardHeader, SpanMask, Split, TOKENIZER_DIRECTORY, Tokenizer, Vocabulary, WordRules,
};
use lambert::rng::Key;
use lambert::train::pretraining::baselines;

const VOCABULARY_SIZE: usize = 1000;

fn vocabulary() -> Vocabulary {
    let specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(String::from);
    let words = (5..VOCABULARY_SIZE).map(|i| if i % 4 == 0 { format!("##{i}") } else { format!("w{i}") });
    Vocabulary::new(specials.into_iter().chain(words).collect()).unwrap()
}

/// Writes prepared data of random text: documents of 1 to 30 sentences of 1 to 60 tokens, uniform over the vocabulary
/// without special tokens. Every tenth document is held out.
fn write(directory: &Path, documents: usize, shards: usize, seed: u64) {
    let vocabulary = vocabulary();
    std::fs::create_dir_all(directory.join(TOKENIZER_DIRECTORY)).unwrap();
    for (name, content) in Tokenizer::new(vocabulary.clone(), WordRules::bert(true)).files() {
        std::fs::write(directory.join(TOKENIZER_DIRECTORY).join(name), content).unwrap();
    }
    let mut manifest = Manifest {
        format: MANIFEST_FORMAT,
        sha256: None,
        vocabulary_sha256: vocabulary.sha256().to_owned(),
        vocabulary_size: vocabulary.len(),
        tokenizer: Default::default(),
        pipeline: None,
        lowercase: true,
        strip_accents: None,
        tokenize_chinese_chars: None,
        text_rules: None,
        options: PrepareOptions::default(),
        train: Default::default(),
        held_out: Default::default(),
        reading: ReadCounts::default(),
        overlong_documents: 0,
        removed: Default::default(),
        inputs: vec![],
        shards: vec![],
    };
    let mut stream = Key::new(seed).stream();
    for (split, documents) in [(Split::Train, documents - documents / 10), (Split::HeldOut, documents / 10)] {
        for shard in 0..shards {
            let mut builder = ShardBuilder::new(&vocabulary);
            for _ in (0..documents).filter(|document| document * shards / documents == shard) {
                for _ in 0..stream.between(1, 30) {
                    let length = stream.between(1, 60);
                    let ids = (0..length).map(|_| stream.between(5, VOCABULARY_SIZE as u64 - 1) as u32);
                    builder.push_sentence(&ids.collect::<Vec<_>>());
                }
                builder.end_document();
            }
            let header = ShardHeader {
                format: SHARD_FORMAT,
                split,
                vocabulary_sha256: vocabulary.sha256().to_owned(),
                vocabulary_size: vocabulary.len(),
                counts: builder.counts(),
                sources: BTreeMap::new(),
            };
            let file = format!("{split}-{shard:05}.safetensors");
            let (bytes, sha256) = builder.write(&directory.join(&file), &header).unwrap();
            match split {
                Split::Train => manifest.train += builder.counts(),
                Split::HeldOut => manifest.held_out += builder.counts(),
            }
            manifest.shards.push(ShardEntry { file, split, bytes, sha256, counts: builder.counts() });
        }
    }
    std::fs::write(directory.join(MANIFEST), serde_json::to_vec(&manifest).unwrap()).unwrap();
}

fn examples(documents: usize, shards: usize, split: Split, config: ExampleConfig) -> Dataset {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), documents, shards, 7);
    let prepared = Arc::new(PreparedData::open(directory.path()).unwrap());
    prepared.verify(&|_| ()).unwrap();
    // The open files outlive their directory.
    Dataset::new(prepared, split, config).unwrap()
}

fn concatenate(parts: &[Batch]) -> Batch {
    let mut whole = parts[0].clone();
    for part in &parts[1..] {
        whole.rows += part.rows;
        whole.input_ids.extend(&part.input_ids);
        whole.token_type_ids.extend(&part.token_type_ids);
        whole.attention_mask.extend(&part.attention_mask);
        whole.masked_lm_positions.extend(&part.masked_lm_positions);
        whole.masked_lm_ids.extend(&part.masked_lm_ids);
        whole.masked_lm_weights.extend(&part.masked_lm_weights);
        whole.next_sentence_labels.extend(&part.next_sentence_labels);
    }
    whole
}

/// Returns `true` if `count` of `n` is within five standard deviations of probability `p`.
fn near(count: usize, n: usize, p: f64) -> bool {
    (count as f64 - n as f64 * p).abs() < 5.0 * (n as f64 * p * (1.0 - p)).sqrt()
}

/// As in mosaicml/streaming's `test_partition_relaxed_resumption` and grain's elastic iterators: a global batch of 960,
/// every number of hosts with eight devices that divides it, any micro-batch and number of threads, started at any step
/// by a process that has not built the steps before.
#[test]
fn rows_are_independent_of_hosts_devices_micro_batches_threads_and_restarts() {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), 250, 3, 7);
    let prepared = Arc::new(PreparedData::open(directory.path()).unwrap());
    let config = ExampleConfig { seed: 3, ..ExampleConfig::bert(32, 5) };
    let start = || Dataset::new(prepared.clone(), Split::Train, config.clone()).unwrap();
    let (global_batch, steps) = (960, 8);
    let whole: Vec<Batch> = {
        let examples = start();
        (0..steps).map(|step| examples.batch(step * global_batch, global_batch as usize).unwrap()).collect()
    };
    let covered = start().epochs_covered(steps * global_batch);
    assert!(covered > 1.5, "the steps cross the end of an epoch: {covered}");
    let hosts = [1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 24, 30, 40, 60, 120];
    for (i, &hosts) in hosts.iter().enumerate() {
        let step = i as u64 % steps;
        let (devices, threads) = (8, 1 + i % 3);
        let rows = global_batch as usize / (hosts * devices);
        let micro_batch = (1..=rows).filter(|&size| rows.is_multiple_of(size)).nth(i % 2).unwrap_or(rows);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let examples = start();
        let parts: Vec<Batch> = (0..global_batch as usize / micro_batch)
            .map(|slice| {
                let first = step * global_batch + (slice * micro_batch) as u64;
                pool.install(|| examples.batch(first, micro_batch).unwrap())
            })
            .collect();
        let case = format!("step {step}, {hosts} hosts × {devices} devices × {micro_batch} rows, {threads} threads");
        assert_eq!(concatenate(&parts), whole[step as usize], "{case}");
    }
}

#[test]
fn a_distant_step_is_found_quickly() {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), 600, 2, 7);
    let prepared = Arc::new(PreparedData::open(directory.path()).unwrap());
    let started_at = |step: u64| {
        let begin = std::time::Instant::now();
        let config = ExampleConfig::bert(32, 5);
        let examples = Dataset::new(prepared.clone(), Split::Train, config).unwrap();
        examples.batch(step * 65_536, 1).unwrap();
        (begin.elapsed(), examples.epochs_covered(step * 65_536))
    };
    let (near, _) = started_at(0);
    let (far, epochs) = started_at(1_000_000_000);
    // About ten billion epochs precede it. Sixteen chunkings are counted instead of one; the rest of the bound allows
    // for a busy machine.
    assert!(epochs > 1e9, "{epochs}");
    assert!(far < 100 * near + std::time::Duration::from_secs(1), "step 0: {near:?}, step 10⁹: {far:?}");
}

#[test]
fn batches_are_independent_of_earlier_batches_and_of_sharding() {
    let config = ExampleConfig { seed: 11, ..ExampleConfig::bert(48, 7) };
    let one = examples(100, 1, Split::Train, config.clone());
    let two = examples(100, 4, Split::Train, config);
    let far = 9 * one.epoch_len(0);
    let late = one.batch(far, 16).unwrap();
    let early = one.batch(5, 16).unwrap();
    for epoch in 0..8 {
        two.epoch_len(epoch);
    }
    assert_eq!(two.batch(far, 16).unwrap(), late);
    assert_eq!(two.batch(5, 16).unwrap(), early, "after the table of epoch 0 was dropped");
    assert_eq!(one.batch(5, 16).unwrap(), early);
}

#[test]
fn an_epoch_holds_every_chunk_once_and_the_next_has_other_chunks() {
    let examples = examples(60, 2, Split::Train, ExampleConfig { seed: 1, ..ExampleConfig::bert(64, 9) });
    let lengths = [examples.epoch_len(0), examples.epoch_len(1)];
    let all: Vec<_> = (0..lengths[0] + lengths[1]).map(|n| examples.example(n).unwrap()).collect();
    let (first, second) = all.split_at(lengths[0] as usize);
    assert!(first.iter().all(|e| e.epoch == 0) && second.iter().all(|e| e.epoch == 1));

    // Every document occurs, and no two pairs have the same `a`.
    let documents: HashSet<usize> = first.iter().map(|e| e.layout.segments[0].document).collect();
    assert_eq!(documents.len(), examples.prepared().documents(Split::Train).len());
    let places: HashSet<_> =
        first.iter().map(|e| (e.layout.segments[0].document, e.layout.segments[0].tokens.clone())).collect();
    assert_eq!(places.len(), first.len());
    // Other chunks, another order, other masks.
    let same = second.iter().filter(|e| first.iter().any(|f| f.tokens == e.tokens)).count();
    assert!(same * 50 < second.len(), "{same} of {} examples come again", second.len());

    assert_eq!(examples.epochs_covered(lengths[0] + lengths[1]), 2.0);
    let half = lengths[0] / 2;
    assert_eq!(examples.epochs_covered(half), half as f64 / lengths[0] as f64);
}

#[test]
fn rows_have_the_layout_and_rates_of_create_pretraining_data() {
    let (s, p) = (128, 20);
    let examples = examples(3000, 2, Split::Train, ExampleConfig { seed: 5, ..ExampleConfig::bert(s, p) });
    let rows = examples.epoch_len(0) as usize;
    let batch = examples.batch(0, rows).unwrap();
    let (cls, sep, mask) = (2, 3, 4);

    let (mut masked, mut kept, mut random, mut predictions) = (0, 0, 0, 0);
    for row in 0..rows {
        let ids = &batch.input_ids[row * s..][..s];
        let types = &batch.token_type_ids[row * s..][..s];
        let length = batch.attention_mask[row * s..][..s].iter().sum::<i32>() as usize;
        let wanted = ((length as f64 * 0.15).round_ties_even() as usize).clamp(1, p);
        let weights = &batch.masked_lm_weights[row * p..][..p];
        assert!(weights[..wanted].iter().all(|&w| w == 1.0) && weights[wanted..].iter().all(|&w| w == 0.0));
        // round(128 · 0.15) = 19: the last of BERT's 20 masked positions is never used at this length.
        assert_eq!((wanted < p, batch.masked_lm_ids[row * p + p - 1]), (true, 0));
        assert_eq!(batch.masked_lm_positions[row * p + p - 1], 0);
        let positions: Vec<usize> =
            batch.masked_lm_positions[row * p..][..wanted].iter().map(|&position| position as usize).collect();
        let targets = &batch.masked_lm_ids[row * p..][..wanted];
        assert!(positions.is_sorted_by(|a, b| a < b), "{positions:?}");

        // [CLS] a [SEP] b [SEP] and padding, once the targets are restored.
        let mut original = ids.to_vec();
        for (&position, &id) in positions.iter().zip(targets) {
            original[position] = id;
        }
        let b = types.iter().position(|&t| t == 1).unwrap();
        assert_eq!((original[0], original[b - 1], original[length - 1]), (cls, sep, sep));
        assert_eq!(original[..length].iter().filter(|&&id| id < 5).count(), 3, "special tokens are never masked");
        assert!(types[..b].iter().all(|&t| t == 0) && types[b..length].iter().all(|&t| t == 1));
        assert!(types[length..].iter().all(|&t| t == 0) && ids[length..].iter().all(|&id| id == 0));
        assert!(b > 2 && length - b >= 2, "neither segment is empty");

        predictions += wanted;
        for (&position, &id) in positions.iter().zip(targets) {
            match ids[position] {
                token if token == mask => masked += 1,
                token if token == id => kept += 1,
                _ => random += 1,
            }
        }
    }
    // A random token is [MASK], or the original token, with probability 1 / VOCABULARY_SIZE each.
    let v = VOCABULARY_SIZE as f64;
    assert!(near(masked, predictions, 0.8 + 0.1 / v), "{masked} of {predictions} masked");
    assert!(near(kept, predictions, 0.1 + 0.1 / v), "{kept} of {predictions} kept");
    assert!(near(random, predictions, 0.1 - 0.2 / v), "{random} of {predictions} random");
}

#[test]
fn masked_lm_prob_changes_only_the_number_of_masked_tokens() {
    let with = |masked_lm_prob| {
        let config = ExampleConfig { masked_lm_prob, ..ExampleConfig::bert(64, 30) };
        examples(200, 2, Split::Train, config).batch(0, 500).unwrap()
    };
    let (few, many) = (with(0.15), with(0.4));
    for (rate, batch) in [(0.15, &few), (0.4, &many)] {
        for (weights, mask) in batch.masked_lm_weights.chunks(30).zip(batch.attention_mask.chunks(64)) {
            let tokens: i32 = mask.iter().sum();
            assert_eq!(weights.iter().sum::<f32>() as f64, (tokens as f64 * rate).round_ties_even().max(1.0));
        }
    }
    assert_eq!(few.attention_mask, many.attention_mask);
    assert_eq!(few.token_type_ids, many.token_type_ids);
    assert_eq!(few.next_sentence_labels, many.next_sentence_labels);
}

#[test]
fn a_masking_ramp_masks_each_example_by_its_number_and_changes_nothing_else() {
    let ramp = Some(MaskingRamp { to: 0.1, examples: 400 });
    let with = |masking_ramp| {
        examples(
            200,
            2,
            Split::Train,
            ExampleConfig { masked_lm_prob: 0.5, masking_ramp, ..ExampleConfig::bert(64, 40) },
        )
    };
    let (ramped, constant) = (with(ramp), with(None));
    let batch = ramped.batch(0, 600).unwrap();
    for (number, (weights, mask)) in batch.masked_lm_weights.chunks(40).zip(batch.attention_mask.chunks(64)).enumerate()
    {
        let share = (0.5 - 0.4 * number as f64 / 400.0).max(0.1);
        let tokens = mask.iter().sum::<i32>() as f64;
        assert_eq!(weights.iter().sum::<f32>() as f64, (tokens * share).round_ties_even().max(1.0), "{number}");
    }
    assert_eq!(batch.attention_mask, constant.batch(0, 600).unwrap().attention_mask);
    // Any part of the batch has the same rows.
    assert_eq!(ramped.batch(250, 3).unwrap().input_ids, batch.input_ids[250 * 64..253 * 64]);
}

#[test]
fn half_of_the_next_sentences_are_random() {
    // A target of 125 tokens in sentences of at most 60 needs three sentences or more, except near a document's end.
    let config = ExampleConfig { seed: 6, short_seq_prob: 0.0, ..ExampleConfig::bert(128, 20) };
    let examples = examples(3000, 2, Split::Train, config);
    let documents = examples.prepared().documents(Split::Train);
    let (mut coins, mut heads, mut last_sentences) = (0, 0, 0);
    for n in 0..examples.epoch_len(0) {
        let text = examples.window(n, 1).layout(0);
        let [a, b] = text.segments.as_slice() else { panic!("a pair") };
        assert_eq!(text.label == 1, b.document != a.document, "random text is another document's");
        let starts = documents.get(a.document).starts;
        if a.tokens.start < starts[starts.len() - 2] {
            coins += 1;
            heads += usize::from(text.label == 1);
        } else {
            last_sentences += 1;
            assert!(text.label == 1, "one sentence alone has no next one");
        }
    }
    // (`a` contains a document's last sentence only if it is the only one left.)
    assert!(coins > 5000 && last_sentences > 500);
    assert!(near(heads, coins, 0.5), "{heads} of {coins} are random");
}

#[test]
fn a_tenth_of_the_documents_gives_short_sequences() {
    let examples = examples(3000, 1, Split::Train, ExampleConfig { seed: 8, ..ExampleConfig::bert(128, 20) });
    let documents = examples.prepared().documents(Split::Train);
    // The first pair of each document that has enough text after it, if its next sentence is the real one.
    let mut lengths = BTreeMap::new();
    for n in 0..examples.epoch_len(0) {
        let text = examples.window(n, 1).layout(0);
        let [a, b] = text.segments.as_slice() else { panic!("a pair") };
        let starts = documents.get(a.document).starts;
        let room = starts[starts.len() - 1] - starts[0];
        if text.label == 0 && room > 400 && a.tokens.start < starts[1] {
            lengths.insert(a.document, a.tokens.len() + b.tokens.len());
        }
    }
    let short = lengths.values().filter(|&&length| length < 125).count();
    // A target t, uniform from 2 to 125, ends at the first sentence that reaches it: the length is below 125 for t
    // below about 105, if the chunk has two sentences.
    let share = short as f64 / lengths.len() as f64;
    assert!((0.04..0.11).contains(&share), "{short} of {}", lengths.len());
}

/// The layouts of the first epoch, in order.
fn first_epoch(examples: &Dataset) -> Vec<ExampleLayout> {
    let window = examples.window(0, examples.epoch_len(0) as usize);
    (0..window.len()).map(|i| window.layout(i)).collect()
}

#[test]
fn every_mode_uses_each_token_at_most_once_per_epoch_and_reports_lengths() {
    for mode in
        [ExampleMode::NextSentence, ExampleMode::SentenceOrder, ExampleMode::FullSentences, ExampleMode::DocSentences]
    {
        let config = ExampleConfig { mode, seed: 4, ..ExampleConfig::bert(64, 9) };
        let examples = examples(300, 2, Split::Train, config);
        let documents = examples.prepared().documents(Split::Train);
        let texts = first_epoch(&examples);
        let batch = examples.batch(0, texts.len()).unwrap();
        let window = examples.window(0, texts.len());
        // How many examples contain each token of the text, without random segments.
        let mut seen: Vec<Vec<u32>> = (0..documents.len())
            .map(|document| vec![0; *documents.get(document).starts.last().unwrap() as usize])
            .collect();
        for (i, text) in texts.iter().enumerate() {
            let row = &batch.attention_mask[i * 64..][..64];
            assert_eq!(row.iter().sum::<i32>() as usize, window.length(i));
            assert_eq!((text.length(), text.length() <= 64), (window.length(i), true));
            assert_eq!(text.is_pair(), mode.is_pair());
            assert_eq!(batch.next_sentence_labels[i], text.label);
            let random = mode.is_pair() && text.segments[0].document != text.segments[1].document;
            let own = if random { &text.segments[..1] } else { &text.segments[..] };
            for segment in own {
                seen[segment.document][segment.tokens.start as usize..segment.tokens.end as usize]
                    .iter_mut()
                    .for_each(|count| *count += 1);
            }
        }
        let own_tokens = (0..documents.len()).flat_map(|document| {
            let starts = documents.get(document).starts;
            seen[document][starts[0] as usize..].iter().copied()
        });
        let counts: Vec<u32> = own_tokens.collect();
        assert!(counts.iter().all(|&count| count <= 1), "{mode:?}: a token occurs twice");
        let share = counts.iter().filter(|&&count| count == 1).count() as f64 / counts.len() as f64;
        // Pairs lose truncated tokens; single segments take whole sentences, none of which is longer than a row here.
        assert!(if mode.is_pair() { share > 0.6 } else { share == 1.0 }, "{mode:?}: {share} of the tokens");
    }
}

#[test]
fn half_of_the_sop_pairs_are_swapped_neighbours() {
    let config = ExampleConfig { mode: ExampleMode::SentenceOrder, seed: 4, ..ExampleConfig::bert(128, 20) };
    let examples = examples(3000, 2, Split::Train, config);
    let (mut pairs, mut swapped, mut random) = (0, 0, 0);
    for text in first_epoch(&examples) {
        let [a, b] = text.segments.as_slice() else { panic!("a pair") };
        // A chunk of one sentence has no order; as in ALBERT, it gets text of another document.
        if a.document != b.document {
            assert_eq!(text.label, 1);
            random += 1;
            continue;
        }
        assert_eq!(text.label == 1, b.tokens.end <= a.tokens.start, "{a:?} {b:?}");
        let (first, second) = if text.label == 1 { (b, a) } else { (a, b) };
        assert!(second.tokens.start - first.tokens.end < 60, "neighbours but for what was truncated");
        pairs += 1;
        swapped += usize::from(text.label == 1);
    }
    assert!(pairs > 5000 && random > 500 && near(swapped, pairs, 0.5), "{swapped} of {pairs}");
}

#[test]
fn full_sentences_fill_the_length_and_cross_documents() {
    let texts = |mode| {
        let config = ExampleConfig { mode, seed: 4, ..ExampleConfig::bert(128, 20) };
        first_epoch(&examples(1000, 2, Split::Train, config))
    };
    let (full, doc) = (texts(ExampleMode::FullSentences), texts(ExampleMode::DocSentences));
    assert!(doc.iter().all(|text| text.segments.len() == 1));
    let crossing = full.iter().filter(|text| text.segments.len() > 1);
    assert!(crossing.clone().count() * 20 > full.len());
    for text in crossing {
        assert!(text.segments.windows(2).all(|pair| pair[1].document == pair[0].document + 1));
    }
    // The next sentence did not fit, and it has at most 60 tokens; groups of documents end early four times here.
    let short = full.iter().filter(|text| text.length() + 1 + 60 < 128).count();
    assert!(short <= 4, "{short}");
    assert!(full.len() < doc.len());
}

#[test]
fn static_masks_repeat_in_another_order_and_dynamic_masks_never() {
    let rows = |masking, epoch: u64| {
        let config = ExampleConfig { masking, seed: 9, ..ExampleConfig::bert(64, 9) };
        let examples = examples(60, 1, Split::Train, config);
        let first: u64 = (0..epoch).map(|epoch| examples.epoch_len(epoch)).sum();
        let batch = examples.batch(first, examples.epoch_len(epoch) as usize).unwrap();
        batch.input_ids.chunks(64).map(<[i32]>::to_vec).collect::<Vec<_>>()
    };
    let sorted = |mut rows: Vec<Vec<i32>>| {
        rows.sort();
        rows
    };
    let twice = Masking::Static { duplicates: 2 };
    let (zero, one, two) = (rows(twice, 0), rows(twice, 1), rows(twice, 2));
    assert_ne!(zero, two, "another order");
    assert_eq!(sorted(zero.clone()), sorted(two));
    let common = |a: &[Vec<i32>], b: &[Vec<i32>]| a.iter().filter(|row| b.contains(row)).count();
    assert!(common(&zero, &one) * 20 < zero.len());
    // Epoch 16 uses the chunking of epoch 0 again, with other masks.
    let (zero, sixteen) = (rows(Masking::Dynamic, 0), rows(Masking::Dynamic, 16));
    assert_eq!(zero.len(), sixteen.len());
    assert!(common(&zero, &sixteen) * 20 < zero.len());
}

#[test]
fn held_out_examples_are_the_same_at_every_evaluation() {
    let examples = examples(400, 2, Split::HeldOut, ExampleConfig { seed: 2, ..ExampleConfig::bert(64, 9) });
    let len = examples.epoch_len(0);
    assert_eq!(examples.batch(0, 32).unwrap(), examples.batch(3 * len, 32).unwrap());
}

#[test]
fn baselines_are_those_of_the_labels_of_the_evaluated_examples() {
    // More examples than are counted at once.
    let count = 300;
    let pairs = examples(400, 2, Split::HeldOut, ExampleConfig::bert(64, 9));
    let (mut tokens, mut labels) = (BTreeMap::<u32, f64>::new(), BTreeMap::<i32, f64>::new());
    for number in 0..count {
        let example = pairs.example(number).unwrap();
        example.targets.ids.iter().for_each(|&id| *tokens.entry(id).or_default() += 1.0);
        *labels.entry(example.layout.label).or_default() += 1.0;
    }
    // Σ −(c/n) ln(c/n) = ln n − Σ c ln c / n, and the largest c / n.
    let expected = |counts: Vec<f64>| {
        let n: f64 = counts.iter().sum();
        let entropy = n.ln() - counts.iter().map(|c| c * c.ln()).sum::<f64>() / n;
        [entropy, counts.into_iter().fold(0.0, f64::max) / n]
    };
    let found = baselines(&pairs, count).unwrap();
    for (names, counts) in [
        (["mlm_loss", "mlm_accuracy"], tokens.into_values().collect()),
        (["nsp_loss", "nsp_accuracy"], labels.into_values().collect()),
    ] {
        for (name, expected) in names.into_iter().zip(expected(counts)) {
            let found = found.get(name).unwrap();
            assert!((found - expected).abs() < 1e-12, "{name}: {found}, expected {expected}");
        }
    }
    // Single segments have no second label.
    let single = ExampleConfig { mode: ExampleMode::FullSentences, ..ExampleConfig::bert(64, 9) };
    let found = baselines(&examples(400, 2, Split::HeldOut, single), count).unwrap();
    assert!(found.get("mlm_loss").is_some() && found.get("nsp_loss").is_none());
}

#[test]
fn seeds_and_phases_draw_different_examples() {
    let config = ExampleConfig::bert(64, 9);
    let batch = |config| examples(100, 1, Split::Train, config).batch(0, 8).unwrap();
    let first = batch(config.clone());
    assert_eq!(first, batch(config.clone()));
    assert_ne!(first, batch(ExampleConfig { seed: 1, ..config.clone() }));
    assert_ne!(first, batch(ExampleConfig { phase: 1, ..config }));
}

#[test]
fn damaged_shards_and_other_vocabularies_are_rejected_on_open() {
    let shard = "train-00000.safetensors";
    let opened_after = |damage: &dyn Fn(&Path)| -> String {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), 40, 1, 1);
        damage(directory.path());
        PreparedData::open(directory.path()).unwrap_err().to_string()
    };
    let edited = |edit: &dyn Fn(&mut Vec<u8>)| {
        opened_after(&|directory| {
            let mut bytes = std::fs::read(directory.join(shard)).unwrap();
            edit(&mut bytes);
            std::fs::write(directory.join(shard), bytes).unwrap();
        })
    };
    for message in [
        edited(&|bytes| bytes.truncate(bytes.len() - 2)),
        edited(&|bytes| bytes.truncate(5)),
        edited(&|bytes| bytes.push(0)),
        edited(&|bytes| bytes[20] = b'#'),
        edited(&|bytes| bytes[7] = 1),
    ] {
        assert!(message.contains(shard) && message.contains("run `lambert prepare` again"), "{message}");
    }
    let message = opened_after(&|directory| std::fs::remove_file(directory.join(shard)).unwrap());
    assert!(message.contains(shard), "{message}");
    let message = opened_after(&|directory| {
        let file = directory.join(TOKENIZER_DIRECTORY).join("vocab.txt");
        let text = std::fs::read_to_string(&file).unwrap().replace("w5\n", "word\n");
        std::fs::write(file, text).unwrap();
    });
    assert!(message.contains("vocab.txt") && message.contains("requires the vocabulary"), "{message}");
}

#[test]
fn verify_finds_a_changed_token() {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), 40, 1, 1);
    let path = directory.path().join("train-00000.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    let last = bytes.len() - 2;
    bytes[last] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let error = PreparedData::open(directory.path()).unwrap().verify(&|_| ()).unwrap_err();
    assert!(matches!(error, DataError::File { .. }) && error.to_string().contains("sha256"), "{error}");
}

#[test]
fn one_document_and_invalid_settings_are_rejected() {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), 1, 1, 1);
    let prepared = Arc::new(PreparedData::open(directory.path()).unwrap());
    let error = Dataset::new(prepared.clone(), Split::Train, ExampleConfig::bert(128, 20)).unwrap_err();
    assert!(error.to_string().contains("at least 2 documents"), "{error}");
    for config in [
        ExampleConfig::bert(4, 1),
        ExampleConfig::bert(128, 0),
        ExampleConfig::bert(20, 18),
        ExampleConfig { masked_lm_prob: f64::NAN, ..ExampleConfig::bert(128, 20) },
        ExampleConfig {
            mask_shares: MaskShares { masked: 0.8, random: 0.1, kept: 0.2 },
            ..ExampleConfig::bert(128, 20)
        },
        ExampleConfig { short_seq_prob: 1.5, ..ExampleConfig::bert(128, 20) },
        ExampleConfig { masking: Masking::Static { duplicates: 0 }, ..ExampleConfig::bert(128, 20) },
        ExampleConfig {
            span_mask: Some(SpanMask { geometric_p: 1.0, span_upper: 10 }),
            ..ExampleConfig::bert(128, 20)
        },
    ] {
        let error = Dataset::new(prepared.clone(), Split::Train, config).unwrap_err();
        assert!(matches!(error, DataError::Setting { .. }), "{error}");
    }
}
