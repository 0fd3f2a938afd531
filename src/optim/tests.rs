//! What run files may say, and which tensors are treated how. That the updates compute what they should is shown against
//! reference trajectories in `tests/parity.rs`.

use crate::optim::*;

fn read(text: &str) -> Result<OptimizerConfig, String> {
    toml::from_str(text).map_err(|e: toml::de::Error| e.message().to_string())
}

#[test]
fn a_preset_is_named_and_any_knob_overrides_it() {
    let OptimizerConfig::Lamb(lamb) =
        read("preset = 'nvlamb'\nweight_decay = 0\nratio_clamp = { min = 0.01, max = 0.3 }").unwrap()
    else {
        panic!("LAMB")
    };
    let expected = LambConfig {
        weight_decay: 0.0,
        ratio_clamp: Some(RatioClamp { min: 0.01, max: 0.3 }),
        ..LambPreset::Nvlamb.config()
    };
    assert_eq!(lamb, expected);
    assert_eq!(read("").unwrap(), OptimizerConfig::default());
    assert!(matches!(read("kind = 'adamw'\nbias_correction = 'none'").unwrap(), OptimizerConfig::AdamW(_)));
    assert!(matches!(read("kind = 'lars'\norder = 'paper'").unwrap(), OptimizerConfig::Lars(_)));
    let exclude = read("adaptation = { exclude = ['*embeddings*'] }\ngradient_clip = 'per_tensor'").unwrap();
    let OptimizerConfig::Lamb(lamb) = exclude else { panic!("LAMB") };
    assert_eq!(lamb.adaptation, Adaptation::Exclude(vec!["*embeddings*".into()]));
}

#[test]
fn what_is_written_is_read_back() {
    let lamb = LambPreset::ALL.map(|p| OptimizerConfig::Lamb(p.config()));
    let others = [OptimizerConfig::Lars(LarsConfig::default()), OptimizerConfig::AdamW(AdamWConfig::default())];
    for config in lamb.into_iter().chain(others) {
        let text = toml::to_string(&config).unwrap();
        assert_eq!(read(&text).unwrap(), config, "{text}");
        assert!(config.describe().len() >= 7);
        // The fingerprint of a run is made of this text: a knob that came later must not change it where it does nothing.
        assert_eq!(text.contains("direction"), config == OptimizerConfig::Lamb(LambPreset::Lans.config()), "{text}");
    }
}

#[test]
fn mistakes_are_named() {
    let refusal = |text: &str| read(text).unwrap_err();
    assert!(refusal("weight_deca = 0.1").starts_with("unknown field `weight_deca`, expected one of `beta1`"));
    assert_eq!(refusal("beta2 = 1.0"), "beta2 requires a number from 0 to less than 1, got 1");
    assert_eq!(refusal("epsilon = 0.0"), "epsilon requires a number above 0, got 0");
    assert!(refusal("preset = 'nvidia'").starts_with("preset requires one of paper, albert, apex"));
    assert!(refusal("kind = 'sgd'").starts_with("kind requires one of lamb, lars, adamw"));
    assert!(refusal("kind = 'adamw'\npreset = 'apex'").contains("got \"apex\" of kind \"adamw\""));
    assert!(refusal("ratio_clamp = { min = 2.0, max = 1.0 }").contains("0 ≤ min ≤ max"));
    assert!(refusal("gradient_clip = { global_norm = { max = -1.0 } }").contains("gradient_clip.global_norm.max"));
}

#[test]
fn presets_differ_where_their_sources_do() {
    let names = ["a.dense.weight", "a.dense.bias", "a.LayerNorm.weight"];
    let treatments = |text: &str| -> Vec<(bool, bool)> {
        let optimizer = Optimizer::new(&read(text).unwrap(), &names).unwrap();
        optimizer.treatments().iter().map(|t| (t.decayed, t.adapted)).collect()
    };
    let google = [(true, true), (false, false), (false, false)];
    let everyone = [(true, true), (false, true), (false, true)];
    assert_eq!(treatments("preset = 'paper'"), google);
    assert_eq!(treatments("preset = 'albert'\nweight_decay = 0"), google);
    assert_eq!(treatments("preset = 'apex'"), google);
    assert_eq!(treatments("preset = 'apex'\nweight_decay = 0"), [(true, false), (false, false), (false, false)]);
    assert_eq!(treatments("preset = 'nvlamb'"), everyone);
    assert_eq!(treatments("preset = 'deepspeed'"), everyone);
    assert_eq!(treatments("preset = 'lans'"), everyone);
    assert_eq!(treatments("preset = 'optax'"), [(true, true); 3]);
    assert_eq!(treatments("kind = 'adamw'"), [(true, false), (false, false), (false, false)]);
}
