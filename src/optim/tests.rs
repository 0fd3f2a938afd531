//! Tests of the `[optimizer]` table, its JSON, and the treatment of tensors. The formulas are tested elsewhere: against
//! plain arithmetic, and against reference trajectories.

use crate::optim::lamb::{Adaptation, LambConfig};
use crate::optim::stages::RatioClamp;
use crate::optim::*;

fn read(text: &str) -> Result<OptimizerConfig, String> {
    toml::from_str(text).map_err(|e: toml::de::Error| e.message().to_string())
}

#[test]
fn any_setting_overrides_the_preset() {
    let OptimizerConfig::Lamb(lamb) =
        read("preset = 'nvlamb'\nweight_decay = 0\nratio_clamp = { min = 0.01, max = 0.3 }").unwrap()
    else {
        panic!("LAMB")
    };
    let OptimizerConfig::Lamb(nvlamb) = read("preset = 'nvlamb'").unwrap() else { panic!("LAMB") };
    let ratio_clamp = Some(RatioClamp { min: 0.01, max: 0.3 });
    let expected = LambConfig { weight_decay: 0.0, ratio_clamp, ..nvlamb };
    assert_eq!(lamb, expected);
    assert_eq!(read("").unwrap(), OptimizerConfig::default());
    assert!(matches!(read("kind = 'adamw'\nbias_correction = 'none'").unwrap(), OptimizerConfig::AdamW(_)));
    assert!(matches!(read("kind = 'lars'\norder = 'paper'").unwrap(), OptimizerConfig::Lars(_)));
    let exclude = read("adaptation = { exclude = ['*embeddings*'] }\ngradient_clip = 'per_tensor'").unwrap();
    let OptimizerConfig::Lamb(lamb) = exclude else { panic!("LAMB") };
    assert_eq!(lamb.adaptation, Adaptation::Exclude(vec!["*embeddings*".into()]));
}

#[test]
fn written_settings_are_read_back() {
    let presets = OptimizerConfig::catalogue().into_iter().map(|entry| entry.config);
    let kinds = OptimizerConfig::KINDS.iter().map(|kind| read(&format!("kind = '{kind}'")).unwrap());
    for config in presets.chain(kinds) {
        let text = toml::to_string(&config).unwrap();
        assert_eq!(read(&text).unwrap(), config, "{text}");
        assert!(config.describe().len() >= 6);
    }
}

#[test]
fn catalogue_has_each_preset_once_under_its_kind() {
    let catalogue = OptimizerConfig::catalogue();
    for (i, entry) in catalogue.iter().enumerate() {
        let text = format!("kind = '{}'\npreset = '{}'", entry.kind, entry.name);
        assert_eq!(read(&text).unwrap(), entry.config, "{text}");
        let same = |other: &CatalogueEntry| (other.kind, &other.config) == (entry.kind, &entry.config);
        assert!(!catalogue[..i].iter().any(same), "{text} has the settings of an earlier preset");
    }
    assert!(OptimizerConfig::KINDS.iter().all(|kind| catalogue.iter().any(|entry| entry.kind == *kind)));
}

/// Returns the names of the hyper-parameters of the optimizer with these settings.
fn numbers(text: &str) -> Vec<&'static str> {
    read(text).unwrap().hyperparameters().names().collect()
}

#[test]
fn settings_that_change_the_formulas_change_the_hyperparameters_and_values_do_not() {
    let of_paper = ["beta1", "beta3", "beta2", "one_minus_beta2", "epsilon", "half_log_beta1", "half_log_beta2"];
    assert_eq!(numbers("weight_decay = 0.0"), of_paper);
    assert_eq!(numbers("preset = 'apex'\nbeta2 = 0.98")[0], "clip");
    for (one, other) in [
        ("beta1 = 0.8\nweight_decay = 0.3", "epsilon = 1e-8"),
        ("gradient_clip = { global_norm = { max = 1.0 } }", "gradient_clip = { global_norm = { max = 0.5 } }"),
        ("phi = { clamp = { min = 0.0, max = 10.0 } }", "phi = { clamp = { min = 1.0, max = 2.0 } }"),
        ("kind = 'lars'\nmomentum = 0.8", "kind = 'lars'\nweight_decay = 0.1"),
        ("kind = 'sgd'\nmomentum = 0.8", "kind = 'sgd'\nweight_decay = 0.1"),
    ] {
        assert_eq!(numbers(one), numbers(other), "{one}");
    }
    for (with, without, name) in [
        ("", "weight_decay = 0.0", "weight_decay"),
        ("", "bias_correction = 'first_moment_only'", "half_log_beta2"),
        ("gradient_clip = { global_norm = { max = 1.0 } }", "gradient_clip = 'none'", "clip"),
        ("ratio_epsilon = 1e-6", "ratio_epsilon = 0.0", "ratio_epsilon"),
        ("kind = 'sgd'", "kind = 'sgd'\nmomentum = 0.0", "momentum"),
        ("kind = 'lars'\ndampening = 0.1", "kind = 'lars'", "one_minus_dampening"),
        ("kind = 'lars'", "kind = 'lars'\norder = 'paper'", "trust_coefficient"),
    ] {
        assert!(numbers(with).contains(&name) && !numbers(without).contains(&name), "{with}, {without}");
    }
}

#[test]
fn errors_name_the_setting_and_the_accepted_values() {
    let refusal = |text: &str| read(text).unwrap_err();
    assert!(refusal("weight_deca = 0.1").starts_with("unknown field `weight_deca`, expected one of `beta1`"));
    assert_eq!(refusal("beta2 = 1.0"), "beta2 requires a number from 0 to less than 1 in f32, got 1");
    assert_eq!(refusal("beta2 = 0.99999999"), "beta2 requires a number from 0 to less than 1 in f32, got 0.99999999");
    assert_eq!(refusal("epsilon = 0.0"), "epsilon requires a number above 0, got 0");
    assert!(refusal("preset = 'nvidia'").starts_with("preset requires one of paper, albert, apex"));
    assert_eq!(refusal("kind = 'adam'"), "kind requires one of lamb, lars, adamw, sgd, got \"adam\"");
    assert_eq!(
        refusal("kind = 'sgd'\npreset = 'apex'"),
        "preset requires one of torch, timm for kind \"sgd\", got \"apex\", a preset of kind \"lamb\""
    );
    assert!(refusal("preset = 'torch'").ends_with("got \"torch\", a preset of kind \"adamw\" and \"sgd\""));
    assert_eq!(
        refusal("nesterov = 'nadam'\nbias_correction = 'none'"),
        "nesterov requires bias_correction = \"in_update\", or nesterov = \"none\", got bias correction of none"
    );
    assert!(refusal("preset = 'lans'\nnesterov = 'nadam'").starts_with("nesterov requires direction = \"momentum\""));
    assert!(refusal("ratio_epsilon = -1.0").starts_with("ratio_epsilon requires a number of at least 0"));
    for setting in ["trust_clip = true", "nesterov = true", "dampening = 0.1", "ratio_of = 'decayed_gradient'"] {
        let message = refusal(&format!("kind = 'lars'\norder = 'paper'\n{setting}"));
        assert!(
            message.ends_with("requires an order that has it, as order = \"classic\", got order = \"paper\""),
            "{message}"
        );
    }
    assert!(refusal("ratio_clamp = { min = 2.0, max = 1.0 }").contains("0 ≤ min ≤ max"));
    assert!(refusal("gradient_clip = { global_norm = { max = -1.0 } }").contains("gradient_clip.global_norm.max"));
    for setting in ["momentum = 0", "dampening = 0.1"] {
        let message = refusal(&format!("kind = 'sgd'\nnesterov = true\n{setting}"));
        assert!(
            message.starts_with("nesterov requires momentum above 0 and dampening = 0, got momentum 0"),
            "{message}"
        );
    }
}

#[test]
fn settings_that_do_not_fit_f32_are_refused_in_every_optimizer() {
    let requires = "requires a number in the range of f32, which computes it (magnitudes from 1.2e-38 to 3.4e38), got";
    for (setting, key) in [
        ("epsilon = 1e-60", "epsilon"),
        ("kind = 'adamw'\nepsilon = 1e-60", "epsilon"),
        ("weight_decay = 1e-60", "weight_decay"),
        ("kind = 'lars'\ntrust_coefficient = 1e-60", "trust_coefficient"),
        ("kind = 'sgd'\nmomentum = 1e-60", "momentum"),
        ("gradient_clip = { global_norm = { max = 1e-60 } }", "gradient_clip.global_norm.max"),
        ("ratio_clamp = { min = 1e-60, max = 1.0 }", "ratio_clamp.min"),
    ] {
        assert_eq!(read(setting).unwrap_err(), format!("{key} {requires} 1e-60"), "{setting}");
    }
    assert_eq!(read("weight_decay = 1e300").unwrap_err(), format!("weight_decay {requires} 1e300"));
}

#[test]
fn presets_exclude_the_tensors_that_their_sources_exclude() {
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
    assert_eq!(treatments("kind = 'sgd'"), [(true, false), (false, false), (false, false)]);
    assert_eq!(treatments("kind = 'adamw'\npreset = 'torch'"), [(true, false); 3]);
    assert_eq!(treatments("kind = 'lars'\npreset = 'optax'"), [(true, true); 3]);
    assert_eq!(treatments("kind = 'lars'\npreset = 'timm'"), google);
    let unadapted = [(true, false), (false, false), (false, false)];
    assert_eq!(treatments("kind = 'lars'\npreset = 'timm'\nweight_decay = 0"), unadapted);
    assert_eq!(treatments("kind = 'lars'\npreset = 'apex_larc'"), everyone);
}

/// Settings and the JSON that earlier builds wrote for them, byte for byte. Checkpoints contain it as part of the run's
/// fingerprint: a build that changes it cannot resume them.
const JSON_OF_EARLIER_BUILDS: [(&str, &str); 13] = [
    (
        "preset = 'paper'",
        concat!(
            r#"{"kind":"lamb","beta1":0.9,"beta2":0.999,"epsilon":1e-6,"epsilon_place":"outside_sqrt","#,
            r#""bias_correction":"in_update","grad_averaging":true,"gradient_clip":"none","weight_decay":0.01,"#,
            r#""weight_decay_mode":"decoupled","exclude_from_weight_decay":["*.bias","*LayerNorm*"],"#,
            r#""adaptation":"as_weight_decay","phi":"identity"}"#,
        ),
    ),
    (
        "preset = 'albert'",
        concat!(
            r#"{"kind":"lamb","beta1":0.9,"beta2":0.999,"epsilon":1e-6,"epsilon_place":"outside_sqrt","#,
            r#""bias_correction":"none","grad_averaging":true,"gradient_clip":{"global_norm":{"max":1.0,"#,
            r#""formula":"tensorflow"}},"weight_decay":0.01,"weight_decay_mode":"decoupled","#,
            r#""exclude_from_weight_decay":["*.bias","*LayerNorm*"],"adaptation":"as_weight_decay","#,
            r#""phi":"identity"}"#,
        ),
    ),
    (
        "preset = 'apex'",
        concat!(
            r#"{"kind":"lamb","beta1":0.9,"beta2":0.999,"epsilon":1e-6,"epsilon_place":"outside_sqrt","#,
            r#""bias_correction":"in_update","grad_averaging":true,"gradient_clip":{"global_norm":{"max":1.0,"#,
            r#""formula":"apex"}},"weight_decay":0.01,"weight_decay_mode":"decoupled","#,
            r#""exclude_from_weight_decay":["*.bias","*LayerNorm*"],"adaptation":"where_decayed","phi":"identity"}"#,
        ),
    ),
    (
        "preset = 'nvlamb'",
        concat!(
            r#"{"kind":"lamb","beta1":0.9,"beta2":0.999,"epsilon":1e-6,"epsilon_place":"outside_sqrt","#,
            r#""bias_correction":"in_update","grad_averaging":true,"gradient_clip":{"global_norm":{"max":1.0,"#,
            r#""formula":"apex"}},"weight_decay":0.01,"weight_decay_mode":"decoupled","#,
            r#""exclude_from_weight_decay":["*.bias","*LayerNorm*"],"adaptation":"all","phi":"identity"}"#,
        ),
    ),
    (
        "preset = 'deepspeed'",
        concat!(
            r#"{"kind":"lamb","beta1":0.9,"beta2":0.999,"epsilon":1e-8,"epsilon_place":"outside_sqrt","#,
            r#""bias_correction":"learning_rate_only","grad_averaging":true,"gradient_clip":"none","#,
            r#""weight_decay":0.01,"weight_decay_mode":"decoupled","exclude_from_weight_decay":["*.bias","#,
            r#""*LayerNorm*"],"adaptation":"all","phi":"identity","ratio_clamp":{"min":0.01,"max":10.0}}"#,
        ),
    ),
    (
        "preset = 'optax'",
        concat!(
            r#"{"kind":"lamb","beta1":0.9,"beta2":0.999,"epsilon":1e-6,"epsilon_place":"outside_sqrt","#,
            r#""bias_correction":"in_update","grad_averaging":true,"gradient_clip":"none","weight_decay":0.0,"#,
            r#""weight_decay_mode":"decoupled","exclude_from_weight_decay":[],"adaptation":"all","phi":"identity"}"#,
        ),
    ),
    (
        "preset = 'mlperf'",
        concat!(
            r#"{"kind":"lamb","beta1":0.9,"beta2":0.999,"epsilon":1e-6,"epsilon_place":"outside_sqrt","#,
            r#""bias_correction":"in_update","grad_averaging":true,"gradient_clip":{"global_norm":{"max":1.0,"#,
            r#""formula":"tensorflow"}},"weight_decay":0.01,"weight_decay_mode":"decoupled","#,
            r#""exclude_from_weight_decay":["*.bias","*LayerNorm*"],"adaptation":"as_weight_decay","#,
            r#""phi":"identity"}"#,
        ),
    ),
    (
        "preset = 'lans'",
        concat!(
            r#"{"kind":"lamb","beta1":0.9,"beta2":0.999,"epsilon":1e-6,"epsilon_place":"outside_sqrt","#,
            r#""bias_correction":"in_update","grad_averaging":true,"gradient_clip":"per_tensor","#,
            r#""weight_decay":0.01,"weight_decay_mode":"decoupled","exclude_from_weight_decay":["*.bias","#,
            r#""*LayerNorm*"],"direction":"momentum_and_gradient","adaptation":"all","phi":"identity"}"#,
        ),
    ),
    (
        "kind='lars'",
        concat!(
            r#"{"kind":"lars","order":"classic","momentum":0.9,"trust_coefficient":0.001,"epsilon":0.0,"#,
            r#""gradient_clip":"none","weight_decay":0.0001,"exclude_from_weight_decay":["*.bias","*LayerNorm*"]}"#,
        ),
    ),
    (
        "kind='lars'\norder='paper'\nexclude_from_adaptation=['*bias']\ngradient_clip='per_tensor'",
        concat!(
            r#"{"kind":"lars","order":"paper","momentum":0.9,"trust_coefficient":0.001,"epsilon":0.0,"#,
            r#""gradient_clip":"per_tensor","weight_decay":0.0001,"exclude_from_weight_decay":["*.bias","#,
            r#""*LayerNorm*"],"exclude_from_adaptation":["*bias"]}"#,
        ),
    ),
    (
        "kind='adamw'",
        concat!(
            r#"{"kind":"adamw","beta1":0.9,"beta2":0.999,"epsilon":1e-6,"bias_correction":"in_update","#,
            r#""gradient_clip":"none","weight_decay":0.01,"exclude_from_weight_decay":["*.bias","*LayerNorm*"]}"#,
        ),
    ),
    (
        "kind='adamw'\nbias_correction='none'\ngradient_clip={global_norm={max=1.0}}",
        concat!(
            r#"{"kind":"adamw","beta1":0.9,"beta2":0.999,"epsilon":1e-6,"bias_correction":"none","#,
            r#""gradient_clip":{"global_norm":{"max":1.0,"formula":"tensorflow"}},"weight_decay":0.01,"#,
            r#""exclude_from_weight_decay":["*.bias","*LayerNorm*"]}"#,
        ),
    ),
    (
        "adaptation={exclude=['*LayerNorm*']}\nphi={clamp={min=0.5,max=2.0}}\nepsilon_place='inside_sqrt'\nweight_decay_mode='l2'\ngradient_clip={per_group={max=0.5,formula='apex'}}",
        concat!(
            r#"{"kind":"lamb","beta1":0.9,"beta2":0.999,"epsilon":1e-6,"epsilon_place":"inside_sqrt","#,
            r#""bias_correction":"in_update","grad_averaging":true,"gradient_clip":{"per_group":{"max":0.5,"#,
            r#""formula":"apex"}},"weight_decay":0.01,"weight_decay_mode":"l2","#,
            r#""exclude_from_weight_decay":["*.bias","*LayerNorm*"],"adaptation":{"exclude":["*LayerNorm*"]},"#,
            r#""phi":{"clamp":{"min":0.5,"max":2.0}}}"#,
        ),
    ),
];

#[test]
fn json_of_lamb_lars_and_adamw_is_byte_identical_to_earlier_builds() {
    for (settings, json) in JSON_OF_EARLIER_BUILDS {
        assert_eq!(serde_json::to_string(&read(settings).unwrap()).unwrap(), json, "{settings}");
    }
}
