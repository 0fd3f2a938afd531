//! Wikimedia's XML dumps, `…-pages-articles.xml`: the latest revision of each article as plain text. Pages of other
//! namespaces, redirects and disambiguation pages are counted and skipped.

use std::io::{self, BufRead, Read, Take};

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};
use rayon::prelude::*;

use super::entities;
use super::wikitext::Wiki;
use crate::data::corpus::decompress::Decompressed;
use crate::data::corpus::text_batch::BatchWriter;
use crate::data::corpus::utf8::Utf8;
use crate::data::error::{DataError, Result};

/// Bytes of wiki text converted at a time by all cores.
const PAGES_AT_ONCE: usize = 1 << 21;
/// Largest page in bytes. MediaWiki allows two mebibytes.
const LONGEST_PAGE: usize = 1 << 27;

const BEGINNING: &str = "the XML of a Wikimedia dump: <mediawiki>";

/// Reads a dump to its end. Reads the next pages while the previous ones are converted.
pub(in crate::data::corpus) fn read(source: &mut Decompressed, batches: &mut BatchWriter) -> Result<()> {
    let mut dump = Dump::new(Utf8::new(&mut source.reader, batches.options().invalid_utf8));
    let mut pages = Vec::new();
    let outcome = loop {
        let wiki = dump.wiki.clone();
        let (next, kinds) = rayon::join(
            || dump.several_pages(),
            || pages.par_iter().map(|page| kind_of(page, &wiki)).collect::<Vec<_>>(),
        );
        batches.counts().replaced_bytes += dump.bytes().take_replaced();
        kinds.into_iter().for_each(|kind| kind.add_to(batches));
        pages = match next {
            Ok(next) => next,
            Err(error) => break Err(error),
        };
        if pages.is_empty() || !batches.accepts_more() {
            break Ok(());
        }
    };
    let seen = dump.pages_seen;
    let refused = dump.xml.into_inner().into_inner().refused();
    outcome.map_err(|error| match error {
        ReadError::Read(error) => match refused {
            Some(bytes) => batches.not_utf8(&bytes, &format!("page {}", seen + 1)),
            None => source.broken(error),
        },
        ReadError::Form { required, found } => {
            let next = "download the dump again and compare its checksum with the publisher's";
            DataError::file(source.path, required, format!("{found}, after {seen} pages"), next)
        }
    })
}

/// The kind of a page, and the text of an article.
enum Kind {
    Article(String),
    Redirect,
    Disambiguation,
    Other,
}

fn kind_of(page: &Page, wiki: &Wiki) -> Kind {
    if page.namespace != "0" {
        Kind::Other
    } else if page.is_redirect {
        Kind::Redirect
    } else if wiki.is_disambiguation(&page.title, &page.text) {
        Kind::Disambiguation
    } else {
        Kind::Article(wiki.plain_text(&page.text))
    }
}

impl Kind {
    fn add_to(self, batches: &mut BatchWriter) {
        match self {
            Kind::Article(text) => batches.document(&text),
            Kind::Redirect => batches.counts().redirects += 1,
            Kind::Disambiguation => batches.counts().disambiguations += 1,
            Kind::Other => batches.counts().other_pages += 1,
        }
    }
}

#[derive(Default)]
struct Page {
    title: String,
    namespace: String,
    text: String,
    is_redirect: bool,
}

enum ReadError {
    Read(io::Error),
    Form { required: String, found: String },
}

fn format_error(required: &str, found: impl Into<String>) -> ReadError {
    ReadError::Form { required: required.to_owned(), found: found.into() }
}

impl From<quick_xml::Error> for ReadError {
    fn from(error: quick_xml::Error) -> Self {
        match error {
            // The error is shared, so only what its message and its handling need is copied.
            quick_xml::Error::Io(error) => ReadError::Read(match error.raw_os_error() {
                Some(code) => io::Error::from_raw_os_error(code),
                None => io::Error::new(error.kind(), error),
            }),
            error => format_error("the well-formed XML of a Wikimedia dump", error.to_string()),
        }
    }
}

/// The elements whose text is read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Element {
    Title,
    Namespace,
    Text,
    /// The name of a namespace in the site description; `is_hidden` if links into it show nothing.
    NamespaceName {
        is_hidden: bool,
    },
}

struct Dump<R> {
    /// The limit is reset for each XML event, because an event is held in memory as a whole.
    xml: Reader<Take<Utf8<R>>>,
    buffer: Vec<u8>,
    wiki: Wiki,
    pages_seen: u64,
    /// Number of open elements.
    depth: usize,
    has_begun: bool,
}

impl<R: BufRead> Dump<R> {
    fn new(bytes: Utf8<R>) -> Self {
        let xml = Reader::from_reader(bytes.take(0));
        Dump { xml, buffer: Vec::new(), wiki: Wiki::default(), pages_seen: 0, depth: 0, has_begun: false }
    }

    fn bytes(&mut self) -> &mut Utf8<R> {
        self.xml.get_mut().get_mut()
    }

    /// Returns the next pages, [`PAGES_AT_ONCE`] bytes or slightly more; none at the end.
    fn several_pages(&mut self) -> std::result::Result<Vec<Page>, ReadError> {
        let (mut pages, mut length) = (Vec::new(), 0);
        while length < PAGES_AT_ONCE {
            let Some(page) = self.next_page()? else { break };
            length += page.text.len();
            pages.push(page);
        }
        Ok(pages)
    }

    fn next_page(&mut self) -> std::result::Result<Option<Page>, ReadError> {
        let mut page = Page::default();
        let mut element = None;
        let mut name = String::new();
        loop {
            self.buffer.clear();
            self.xml.get_mut().set_limit(LONGEST_PAGE as u64 + 1);
            match self.xml.read_event_into(&mut self.buffer)? {
                Event::Start(tag) => {
                    if self.depth == 0 && tag.name().as_ref() != "mediawiki" {
                        let found = format!("<{}>", tag.name().as_ref());
                        return Err(format_error(BEGINNING, found));
                    }
                    self.depth += 1;
                    self.has_begun = true;
                    element = element_of(&tag);
                    match element {
                        // Of several revisions, the last one counts.
                        Some(Element::Text) => page.text.clear(),
                        Some(Element::NamespaceName { .. }) => name.clear(),
                        _ => {}
                    }
                }
                Event::Empty(tag) if tag.name().as_ref() == "redirect" => page.is_redirect = true,
                Event::End(tag) => {
                    self.depth = self.depth.saturating_sub(1);
                    if let Some(Element::NamespaceName { is_hidden: true }) = element.take() {
                        self.wiki.hide_namespace(&name);
                    }
                    if tag.name().as_ref() == "page" {
                        if page.namespace.is_empty() {
                            return Err(format_error("<ns> in every <page>", format!("none in {:?}", page.title)));
                        }
                        self.pages_seen += 1;
                        return Ok(Some(page));
                    }
                }
                Event::Text(text) => page.append(element, &mut name, &text.xml10_content())?,
                Event::CData(text) => page.append(element, &mut name, &text)?,
                Event::GeneralRef(reference) => match entities::resolve(&reference) {
                    Some(character) => page.append(element, &mut name, &character)?,
                    None => return Err(format_error("an entity of XML", format!("&{};", &*reference))),
                },
                Event::Eof if self.depth > 0 => return Err(format_error("</mediawiki>", "the end of the file")),
                Event::Eof if !self.has_begun => return Err(format_error(BEGINNING, "the end of the file")),
                Event::Eof => return Ok(None),
                _ => {}
            }
        }
    }
}

/// Returns the element that `tag` opens, if its text is read.
fn element_of(tag: &BytesStart) -> Option<Element> {
    match tag.name().as_ref() {
        "title" => Some(Element::Title),
        "ns" => Some(Element::Namespace),
        "text" => Some(Element::Text),
        "namespace" => {
            let key = tag.try_get_attribute("key").ok().flatten().map(|key| key.value.into_owned());
            // Media, File and Category.
            Some(Element::NamespaceName { is_hidden: key.is_some_and(|key| ["-2", "6", "14"].contains(&&*key)) })
        }
        _ => None,
    }
}

impl Page {
    fn append(
        &mut self,
        element: Option<Element>,
        name: &mut String,
        text: &str,
    ) -> std::result::Result<(), ReadError> {
        match element {
            Some(Element::Title) => self.title.push_str(text),
            Some(Element::Namespace) => self.namespace.push_str(text.trim()),
            Some(Element::NamespaceName { .. }) => name.push_str(text),
            Some(Element::Text) => self.text.push_str(text),
            None => {}
        }
        match self.text.len() > LONGEST_PAGE {
            true => Err(format_error("a page of at most 128 MiB", format!("a longer one, {:?}", self.title))),
            false => Ok(()),
        }
    }
}
