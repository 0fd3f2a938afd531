//! The parameters of a model: those of the encoder and of its heads.

use super::fine_tuning::{Objective, QuestionAnswering, Regression, SequenceClassification, TokenClassification};
use super::{BertConfig, Head};
use crate::task::{Init, ParamSpec};

/// Returns every learned tensor of `BertForPreTraining`, in declaration order. The MLM decoder is tied to the word embedding and
/// is not listed twice.
pub fn param_specs(config: &BertConfig) -> Vec<ParamSpec> {
    param_specs_of(config, &Head::Pretraining)
}

/// Returns every learned tensor of the class of transformers with this head, in declaration order.
pub fn param_specs_of(config: &BertConfig, head: &Head) -> Vec<ParamSpec> {
    match head {
        Head::Pretraining => Specs::encoder(config).pooler().mlm_head().nsp_head().list,
        Head::SequenceClassification { labels } => SequenceClassification { classes: labels.len() }.parameters(config),
        Head::Regression => Regression.parameters(config),
        Head::TokenClassification { labels } => TokenClassification { classes: labels.len() }.parameters(config),
        Head::QuestionAnswering => QuestionAnswering.parameters(config),
    }
}

/// A list of parameters, to which the parts of a model are added in the order of their declaration.
pub(super) struct Specs<'c> {
    config: &'c BertConfig,
    /// The parameters so far.
    pub list: Vec<ParamSpec>,
}

impl<'c> Specs<'c> {
    /// Lists embeddings and layers.
    pub fn encoder(config: &'c BertConfig) -> Self {
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let mut specs = Specs { config, list: Vec::new() };
        specs.table("bert.embeddings.word_embeddings.weight", &[config.vocab_size, hidden]);
        specs.table("bert.embeddings.position_embeddings.weight", &[config.max_position_embeddings, hidden]);
        specs.table("bert.embeddings.token_type_embeddings.weight", &[config.type_vocab_size, hidden]);
        specs.layer_norm("bert.embeddings.LayerNorm");
        for layer in 0..config.num_hidden_layers {
            let layer = format!("bert.encoder.layer.{layer}");
            for projection in ["query", "key", "value"] {
                specs.linear(&format!("{layer}.attention.self.{projection}"), hidden, hidden);
            }
            specs.linear(&format!("{layer}.attention.output.dense"), hidden, hidden);
            specs.layer_norm(&format!("{layer}.attention.output.LayerNorm"));
            specs.linear(&format!("{layer}.intermediate.dense"), inner, hidden);
            specs.linear(&format!("{layer}.output.dense"), hidden, inner);
            specs.layer_norm(&format!("{layer}.output.LayerNorm"));
        }
        specs
    }

    /// Adds the pooler.
    pub fn pooler(mut self) -> Self {
        self.linear("bert.pooler.dense", self.config.hidden_size, self.config.hidden_size);
        self
    }

    /// Adds the head of masked language modelling.
    pub fn mlm_head(mut self) -> Self {
        let hidden = self.config.hidden_size;
        self.add("cls.predictions.bias", &[self.config.vocab_size], Init::Zeros);
        self.linear("cls.predictions.transform.dense", hidden, hidden);
        self.layer_norm("cls.predictions.transform.LayerNorm");
        self
    }

    /// Adds the head of next-sentence prediction.
    pub fn nsp_head(mut self) -> Self {
        self.linear("cls.seq_relationship", 2, self.config.hidden_size);
        self
    }

    /// Adds the classifier of rows or tokens.
    pub fn classifier(mut self, outputs: usize) -> Self {
        self.linear("classifier", outputs, self.config.hidden_size);
        self
    }

    /// Adds the head of answer spans.
    pub fn span_head(mut self) -> Self {
        self.linear("qa_outputs", 2, self.config.hidden_size);
        self
    }

    fn add(&mut self, name: &str, published_dims: &[usize], init: Init) {
        let mut dims = published_dims.to_vec();
        if VOCABULARY_SIZED.contains(&name) {
            dims[0] = self.config.padded_vocab_size();
        }
        self.list.push(ParamSpec {
            name: name.to_string(),
            published_dims: published_dims.to_vec(),
            dims,
            init,
            matmul_only: false,
        });
    }

    fn table(&mut self, name: &str, dims: &[usize]) {
        self.add(name, dims, Init::TruncatedNormal { std: self.config.initializer_range });
    }

    fn linear(&mut self, name: &str, out: usize, input: usize) {
        self.table(&format!("{name}.weight"), &[out, input]);
        self.list.last_mut().expect("added just before").matmul_only = true;
        self.add(&format!("{name}.bias"), &[out], Init::Zeros);
    }

    fn layer_norm(&mut self, name: &str) {
        self.add(&format!("{name}.weight"), &[self.config.hidden_size], Init::Ones);
        self.add(&format!("{name}.bias"), &[self.config.hidden_size], Init::Zeros);
    }
}

/// The tensors with a row for each token of the vocabulary, which are padded.
pub const VOCABULARY_SIZED: [&str; 2] = ["bert.embeddings.word_embeddings.weight", "cls.predictions.bias"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bert::Preset;

    #[test]
    fn bert_large_has_its_published_number_of_parameters() {
        let count = |preset: Preset| -> usize {
            param_specs(&preset.config(30522)).iter().map(|p| p.published_dims.iter().product::<usize>()).sum()
        };
        assert_eq!(count(Preset::Large), 336_226_108);
        assert_eq!(count(Preset::Base), 110_106_428);
    }

    #[test]
    fn one_layer_is_thirty_tensors_with_unique_names() {
        let mut config = Preset::Tiny.config(500);
        config.num_hidden_layers = 1;
        let mut names: Vec<String> = param_specs(&config).into_iter().map(|p| p.name).collect();
        assert_eq!(names.len(), 30);
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 30);
    }

    #[test]
    fn initial_values_are_truncated_normal_and_depend_on_seed_and_name_only() {
        let specs = param_specs(&Preset::Tiny.config(1000));
        let word = &specs[0];
        let values = word.initial(3).to_vec::<f32>().unwrap();
        let real = &values[..1000 * 128];
        let std = (real.iter().map(|x| (x * x) as f64).sum::<f64>() / real.len() as f64).sqrt();
        let mean = real.iter().map(|x| *x as f64).sum::<f64>() / real.len() as f64;
        // A normal distribution truncated at two deviations has 0.8796 of its standard deviation.
        assert!((std / 0.02 - 0.8796).abs() < 0.01 && mean.abs() < 2e-4, "std {std}, mean {mean}");
        assert!(real.iter().all(|x| x.abs() <= 0.04));
        assert!(values[1000 * 128..].iter().all(|x| *x == 0.0), "padded rows are zero");

        let larger = param_specs(&Preset::Tiny.config(2000));
        assert_eq!(&larger[0].initial(3).to_vec::<f32>().unwrap()[..1000 * 128], real);
        assert_ne!(word.initial(4), word.initial(3));
        assert_ne!(specs[5].initial(3).bytes(), specs[7].initial(3).bytes(), "query and key differ");
    }

    #[test]
    fn padding_and_unpadding_are_inverse() {
        let specs = param_specs(&Preset::Tiny.config(500));
        for spec in specs.iter().filter(|s| s.dims != s.published_dims) {
            let published = spec.unpad(&spec.initial(1));
            assert_eq!(published.shape().dims, spec.published_dims);
            assert_eq!(spec.pad(&published), spec.initial(1));
        }
    }
}
