//! Wiki text to plain text: sentences stay, everything that surrounds them goes.
//!
//! Comments, references, templates, tables, formulas, galleries, files, categories, links to other languages and headings
//! are left out. Of a link its label stays, of a list its items, each as a line. Every pass reads the text once, from left
//! to right, and takes any text: what is opened and never closed loses its marks and stays.

mod lines;
mod links;
mod tags;
mod templates;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use super::entities::decode_entities;

/// What one wiki calls things.
#[derive(Clone, Debug)]
pub(super) struct Wiki {
    /// Namespaces whose links show nothing in the text, in lower case: files and categories.
    hidden_namespaces: BTreeSet<String>,
}

impl Default for Wiki {
    /// The names that every wiki understands.
    fn default() -> Self {
        Wiki { hidden_namespaces: ["file", "image", "media", "category"].map(str::to_owned).into() }
    }
}

/// Templates that mark a disambiguation page, in the languages with most articles. Parameters may follow.
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
    /// Links into the namespace `name` show nothing.
    pub fn hide_namespace(&mut self, name: &str) {
        self.hidden_namespaces.insert(name.to_lowercase());
    }

    /// True if the page lists the meanings of its title: it has a template that says so, or a title.
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

    /// The text of a page, a paragraph or an item of a list a line, with the empty lines that parted them.
    pub fn plain_text(&self, text: &str) -> String {
        let text = tags::without_tags(text);
        let text = templates::without_templates(&text);
        let text = lines::without_tables(&text);
        let text = links::without_links(&text, &self.hidden_namespaces);
        lines::paragraphs(&decode_entities(&text))
    }
}
