//! Parts of the `tokenizer.json` that we write.

use serde_json::{Value, json};

use super::vocabulary::Vocabulary;
use super::wordpiece::WordRules;

/// Returns a special token of the list `added_tokens`. With `lstrip`, it takes the space before it away from the text.
pub(super) fn added_token(token: &str, id: u32, lstrip: bool) -> Value {
    json!({
        "id": id, "content": token, "single_word": false, "lstrip": lstrip, "rstrip": false, "normalized": false, "special": true,
    })
}

/// Returns BERT's normalizer.
pub(super) fn normalizer(rules: WordRules) -> Value {
    json!({
        "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": rules.tokenize_chinese_chars,
        "strip_accents": rules.written_strip_accents(), "lowercase": rules.lowercase,
    })
}

/// Returns the post-processor that surrounds texts as BERT does, `[CLS] a [SEP] b [SEP]`. The arguments are the tokens and their
/// ids.
pub(super) fn post_processor((cls, cls_id): (&str, u32), (sep, sep_id): (&str, u32)) -> Value {
    let sequence = |id: &str, kind: u32| json!({ "Sequence": { "id": id, "type_id": kind } });
    let token = |id: &str, kind: u32| json!({ "SpecialToken": { "id": id, "type_id": kind } });
    let template = |token: &str, id: u32| json!({ "id": token, "ids": [id], "tokens": [token] });
    json!({
        "type": "TemplateProcessing",
        "single": [token(cls, 0), sequence("A", 0), token(sep, 0)],
        "pair": [token(cls, 0), sequence("A", 0), token(sep, 0), sequence("B", 1), token(sep, 1)],
        "special_tokens": { cls: template(cls, cls_id), sep: template(sep, sep_id) },
    })
}

/// Returns the text of a `tokenizer.json` with another vocabulary, whose tokens are in the order of their ids.
pub(super) fn vocabulary_json(mut tokenizer: Value, vocabulary: &Vocabulary) -> String {
    const PLACEHOLDER: &str = "vocabulary";
    tokenizer["model"]["vocab"] = json!(PLACEHOLDER);
    // A JSON object keeps the order in which it is written.
    let pairs = vocabulary.tokens().iter().enumerate().map(|(id, token)| format!("{}:{id}", json!(token)));
    let pairs = pairs.collect::<Vec<_>>().join(",");
    let written = format!("\"vocab\":\"{PLACEHOLDER}\"");
    tokenizer.to_string().replacen(&written, &format!("\"vocab\":{{{pairs}}}"), 1) + "\n"
}
