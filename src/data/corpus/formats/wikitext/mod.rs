//! Converts wiki text to plain text: keeps the sentences and removes the markup.
//!
//! Comments, references, templates, tables, formulas, galleries, files, categories, interlanguage links and headings
//! are removed. Links are replaced by their labels; list items become lines. Every pass reads the text once, from left
//! to right, and accepts any text: markup that is opened and never closed is removed and its content kept.

mod lines;
mod links;
mod tags;
mod templates;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use super::entities::decode_entities;

/// Settings of one wiki.
#[derive(Clone, Debug)]
pub(super) struct Wiki {
    /// Lower-case names of namespaces whose links show nothing in the text: files and categories.
    hidden_namespaces: BTreeSet<String>,
}

impl Default for Wiki {
    /// The names that all wikis share.
    fn default() -> Self {
        Wiki { hidden_namespaces: ["file", "image", "media", "category"].map(str::to_owned).into() }
    }
}

/// Templates that mark a disambiguation page, in the languages with the most articles. Parameters may follow.
const DISAMBIGUATION_TEMPLATES: [&str; 29] = [
    "disambiguation",
    "disambig",
    "disamb",
    "dab",
    "disambiguation cleanup",
    "geodis",
    "hndis",
    "mathdab",
    "numberdis",
    "roaddis",
    "schooldis",
    "airport disambiguation",
    "hospital disambiguation",
    "place name disambiguation",
    "human name disambiguation",
    "species latin name disambiguation",
    "begriffsklärung",
    "homonymie",
    "desambiguación",
    "desambiguação",
    "disambigua",
    "dp",
    "doorverwijspagina",
    "ujednoznacznienie",
    "förgrening",
    "неоднозначность",
    "багатозначність",
    "aimai",
    "消歧义",
];

impl Wiki {
    /// Makes links into the namespace `name` show nothing.
    pub fn hide_namespace(&mut self, name: &str) {
        self.hidden_namespaces.insert(name.to_lowercase());
    }

    /// Returns `true` for a disambiguation page, recognised by a template or its title.
    pub fn is_disambiguation(&self, title: &str, text: &str) -> bool {
        let is_mark = |template: &str| {
            let name = template.chars().take(48).take_while(|c| !"|}\n".contains(*c));
            let name = name.collect::<String>().replace('_', " ").to_lowercase();
            DISAMBIGUATION_TEMPLATES.contains(&name.trim())
        };
        title.ends_with("(disambiguation)")
            || text.contains("__DISAMBIG__")
            || text.match_indices("{{").any(|(at, _)| is_mark(&text[at + 2..]))
    }

    /// Returns the text of a page, one paragraph or list item per line, with the empty lines between them.
    pub fn plain_text(&self, text: &str) -> String {
        let text = tags::without_tags(text);
        let text = templates::without_templates(&text);
        let text = lines::without_tables(&text);
        let text = links::without_links(&text, &self.hidden_namespaces);
        lines::paragraphs(&decode_entities(&text))
    }
}
