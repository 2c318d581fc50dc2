//! From parsed TOML to the recipe's structs, keeping for each error the place in the text.
//!
//! `toml`'s own deserializer loses the place inside internally tagged and flattened enums, because
//! serde buffers their content. This one knows tags itself:
//!
//! - A struct with a field called like one of [`TAGS`] hands the keys of its table that are not its
//!   own fields to the variant that the tag chooses.
//! - An enum that is itself renamed to a tag (`#[serde(rename = "kind")]`) is read from a table with
//!   that key.

use std::fmt;
use std::ops::Range;

use serde::de::value::StrDeserializer;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error, Expected, IntoDeserializer,
    MapAccess, SeqAccess, Unexpected, VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::near::is_near;

/// The keys that choose a variant.
const TAGS: [&str; 3] = ["source", "kind", "scheme"];

/// Reads `table`, the root of a document, as if it had the entry `probe` as well.
pub(super) fn read<T: DeserializeOwned>(
    table: &DeTable<'_>,
    probe: Option<&Probe>,
) -> Result<T, Fault> {
    T::deserialize(Node {
        value: Value::Table(table),
        span: 0..0,
        path: String::new(),
        rest: None,
        probe,
    })
}

/// An entry that the text does not have. The fault that its value provokes tells what is allowed at
/// its key.
pub(super) struct Probe {
    /// Dotted path of the table that gets the entry.
    pub(super) table: String,
    key: Spanned<DeString<'static>>,
    value: Spanned<DeValue<'static>>,
}

impl Probe {
    /// `key = false`, which no required key allows.
    pub(super) fn new(table: &str, key: &str) -> Probe {
        Probe {
            table: table.to_owned(),
            key: Spanned::new(0..0, DeString::Owned(key.to_owned())),
            value: Spanned::new(0..0, DeValue::Boolean(false)),
        }
    }
}

/// What is wrong, and where.
#[derive(Debug)]
pub(super) struct Fault(Box<(What, Option<Place>)>);

impl Fault {
    pub(super) fn new(what: What) -> Fault {
        Fault(Box::new((what, None)))
    }

    /// The same fault, said to be at this place unless it has a more exact one.
    pub(super) fn at(mut self, span: &Range<usize>, path: &str) -> Fault {
        let place = || Place { span: span.clone(), path: path.to_owned() };
        self.0.1.get_or_insert_with(place);
        self
    }

    /// What is wrong, and its place. A fault without one concerns the whole document.
    pub(super) fn into_parts(self) -> (What, Place) {
        let (what, place) = *self.0;
        (what, place.unwrap_or_default())
    }

    /// Adds what the fault of a key cannot know by itself: that others are allowed in its table too.
    fn in_table(mut self, shared: &[&'static str], tag: Option<&Tag>) -> Fault {
        if let What::UnknownKey { allowed, tag: known, .. } = &mut self.0.0 {
            allowed.splice(0..0, shared.iter().copied());
            *known = tag.cloned();
        }
        self
    }
}

/// A place in the text.
#[derive(Debug, Default)]
pub(super) struct Place {
    /// In bytes.
    pub(super) span: Range<usize>,
    /// Dotted path: of the value; for an unknown or missing key, of its table.
    pub(super) path: String,
}

/// What can be wrong.
#[derive(Debug)]
pub(super) enum What {
    /// The table has a key that it does not allow.
    UnknownKey { key: String, allowed: Vec<&'static str>, tag: Option<Tag> },
    /// The value is not one of the names allowed.
    UnknownValue { allowed: &'static [&'static str] },
    /// The table lacks a key.
    Missing { key: &'static str },
    /// The value has a wrong type or is out of range; says what is allowed.
    Want(String),
    /// The value is at odds with another one.
    Conflict { message: String, help: String },
}

/// The tag that chose which keys a table allows.
#[derive(Debug, Clone)]
pub(super) struct Tag {
    pub(super) key: &'static str,
    pub(super) value: String,
    pub(super) allowed: &'static [&'static str],
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl std::error::Error for Fault {}

impl Error for Fault {
    fn custom<T: fmt::Display>(want: T) -> Fault {
        Fault::new(What::Want(want.to_string()))
    }

    fn invalid_type(_: Unexpected<'_>, want: &dyn Expected) -> Fault {
        Fault::custom(want)
    }

    fn invalid_value(_: Unexpected<'_>, want: &dyn Expected) -> Fault {
        Fault::custom(want)
    }

    fn invalid_length(_: usize, want: &dyn Expected) -> Fault {
        Fault::custom(want)
    }

    fn unknown_variant(_: &str, allowed: &'static [&'static str]) -> Fault {
        Fault::new(What::UnknownValue { allowed })
    }

    fn unknown_field(key: &str, allowed: &'static [&'static str]) -> Fault {
        let allowed = allowed.to_vec();
        Fault::new(What::UnknownKey { key: key.to_owned(), allowed, tag: None })
    }

    fn missing_field(key: &'static str) -> Fault {
        Fault::new(What::Missing { key })
    }
}

/// A value of the document, to be read.
struct Node<'de> {
    value: Value<'de>,
    span: Range<usize>,
    path: String,
    /// For a tag: the other keys of its table.
    rest: Option<Entries<'de>>,
    probe: Option<&'de Probe>,
}

/// The root of a document is a bare table; all else is a [`DeValue`].
enum Value<'de> {
    Table(&'de DeTable<'de>),
    Other(&'de DeValue<'de>),
}

type Entry<'de> = (&'de Spanned<DeString<'de>>, &'de Spanned<DeValue<'de>>);

impl<'de> Node<'de> {
    fn new(
        value: &'de Spanned<DeValue<'de>>,
        path: String,
        probe: Option<&'de Probe>,
    ) -> Node<'de> {
        let span = value.span();
        let value = match value.get_ref() {
            DeValue::Table(table) => Value::Table(table),
            other => Value::Other(other),
        };
        Node { value, span, path, rest: None, probe }
    }

    /// The entries of a table in the order of the text; nothing for another value.
    fn entries(&self) -> Option<Entries<'de>> {
        let Value::Table(table) = self.value else {
            return None;
        };
        let mut entries: Vec<Entry<'de>> = table.iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        if let Some(probe) = self.probe.filter(|probe| probe.table == self.path) {
            entries.push((&probe.key, &probe.value));
        }
        Some(Entries {
            left: entries.into_iter(),
            value: None,
            rest: None,
            span: self.span.clone(),
            path: self.path.clone(),
            shared: Vec::new(),
            tag: None,
            probe: self.probe,
        })
    }

    fn wanted<T>(&self, want: impl Into<String>) -> Result<T, Fault> {
        Err(Fault::new(What::Want(want.into())).at(&self.span, &self.path))
    }

    /// Reads an enum from the table that holds its tag.
    fn tagged_table<V: Visitor<'de>>(
        self,
        tag: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let Some(mut rest) = self.entries() else {
            return self.wanted(format!("a table with {tag} = one of {}", variants.join(", ")));
        };
        let (mut tags, others): (Vec<_>, Vec<_>) =
            rest.left.partition(|(key, _)| key.get_ref() == tag);
        let Some((_, value)) = tags.pop() else {
            return Err(without_tag(tag, &others, &[tag], (&self.span, &self.path)));
        };
        rest.left = others.into_iter();
        rest.shared = vec![tag];
        let mut chosen = Node::new(value, join(&self.path, tag), self.probe);
        chosen.rest = Some(rest);
        chosen.deserialize_enum("", variants, visitor)
    }
}

/// The fault of a table that lacks its tag: perhaps the tag is there, but misspelt.
fn without_tag(
    tag: &'static str,
    others: &[Entry<'_>],
    allowed: &[&'static str],
    (span, path): (&Range<usize>, &str),
) -> Fault {
    let misspelt = others.iter().find(|(key, _)| is_near(key.get_ref(), tag));
    let Some((key, _)) = misspelt else {
        return Fault::missing_field(tag).at(span, path);
    };
    let (key, span) = (key.get_ref().to_string(), key.span());
    Fault::new(What::UnknownKey { key, allowed: allowed.to_vec(), tag: None }).at(&span, path)
}

impl<'de> Deserializer<'de> for Node<'de> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.value {
            Value::Table(_) => self.deserialize_map(visitor),
            Value::Other(DeValue::Boolean(_)) => self.deserialize_bool(visitor),
            Value::Other(DeValue::Integer(_)) => self.deserialize_i64(visitor),
            Value::Other(DeValue::Float(_)) => self.deserialize_f64(visitor),
            Value::Other(DeValue::Array(_)) => self.deserialize_seq(visitor),
            Value::Other(_) => self.deserialize_str(visitor),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.value {
            Value::Other(DeValue::Boolean(value)) => visitor.visit_bool(*value),
            _ => self.wanted("true or false"),
        }
    }

    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let value = match self.value {
            Value::Other(DeValue::Integer(digits)) => {
                i64::from_str_radix(digits.as_str(), digits.radix()).ok()
            }
            _ => None,
        };
        match value {
            Some(value) => visitor.visit_i64(value),
            None => self.wanted("a whole number"),
        }
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let value = match self.value {
            Value::Other(DeValue::Float(digits)) => digits.as_str().parse::<f64>().ok(),
            Value::Other(DeValue::Integer(digits)) => {
                i64::from_str_radix(digits.as_str(), digits.radix()).ok().map(|value| value as f64)
            }
            _ => None,
        };
        match value.filter(|value| value.is_finite()) {
            Some(value) => visitor.visit_f64(value),
            None => self.wanted("a finite number"),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.value {
            Value::Other(DeValue::String(value)) => visitor.visit_str(value),
            _ => self.wanted("a text"),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let Value::Other(DeValue::Array(array)) = self.value else {
            return self.wanted("an array");
        };
        let left = array.iter().enumerate();
        let elements = Elements { left, path: &self.path, probe: self.probe };
        visitor.visit_seq(elements).map_err(|fault| fault.at(&self.span, &self.path))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.entries() {
            Some(entries) => entries.visit(visitor),
            None => self.wanted("a table"),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let Some(mut entries) = self.entries() else {
            return self.wanted(format!("a table with the keys {}", fields.join(", ")));
        };
        let Some(tag) = fields.iter().find(|field| TAGS.contains(field)) else {
            return entries.visit(visitor);
        };
        let (own, others): (Vec<_>, Vec<_>) =
            entries.left.partition(|(key, _)| fields.contains(&key.get_ref().as_ref()));
        if !own.iter().any(|(key, _)| key.get_ref() == tag) {
            return Err(without_tag(tag, &others, fields, (&self.span, &self.path)));
        }
        entries.left = own.into_iter();
        entries.rest = Some(others);
        entries.shared = fields.to_vec();
        entries.visit(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        if TAGS.contains(&name) {
            return self.tagged_table(name, variants, visitor);
        }
        let Value::Other(DeValue::String(chosen)) = self.value else {
            let fault = Fault::new(What::UnknownValue { allowed: variants });
            return Err(fault.at(&self.span, &self.path));
        };
        let (chosen, span, path) = (chosen.as_ref(), self.span, self.path);
        visitor.visit_enum(Choice { chosen, span, path, variants, rest: self.rest })
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Fault> {
        // A visitor of a tuple stops at its last element and would not see that there are more.
        match self.value {
            Value::Other(DeValue::Array(array)) if array.len() == len => {
                self.deserialize_seq(visitor)
            }
            _ => self.wanted(format!("an array of length {len}")),
        }
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i128 u8 u16 u32 u64 u128 f32 char bytes byte_buf unit unit_struct tuple_struct
        identifier ignored_any
    }
}

/// The elements of an array.
struct Elements<'de, 'a, I: Iterator<Item = (usize, &'de Spanned<DeValue<'de>>)>> {
    left: I,
    path: &'a str,
    probe: Option<&'de Probe>,
}

impl<'de, I> SeqAccess<'de> for Elements<'de, '_, I>
where
    I: Iterator<Item = (usize, &'de Spanned<DeValue<'de>>)>,
{
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Fault> {
        let Some((index, value)) = self.left.next() else {
            return Ok(None);
        };
        let path = format!("{}[{index}]", self.path);
        let node = Node::new(value, path.clone(), self.probe);
        seed.deserialize(node).map(Some).map_err(|fault| fault.at(&value.span(), &path))
    }
}

/// The entries of a table, or those of them that are left for the variant which its tag chose.
struct Entries<'de> {
    left: std::vec::IntoIter<Entry<'de>>,
    value: Option<Entry<'de>>,
    /// With a tag among the entries: those that belong to the variant.
    rest: Option<Vec<Entry<'de>>>,
    /// Of the table's header: where a missing key is reported.
    span: Range<usize>,
    path: String,
    /// Keys that the table allows beside those of the variant.
    shared: Vec<&'static str>,
    /// The tag that chose the variant.
    tag: Option<Tag>,
    probe: Option<&'de Probe>,
}

impl<'de> Entries<'de> {
    fn visit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let (span, path) = (self.span.clone(), self.path.clone());
        visitor.visit_map(self).map_err(|fault| fault.at(&span, &path))
    }

    /// The entries for the variant, to be handed on with the tag.
    fn take_rest(&mut self) -> Option<Entries<'de>> {
        let left = self.rest.take()?.into_iter();
        let (span, path, shared) = (self.span.clone(), self.path.clone(), self.shared.clone());
        let probe = self.probe;
        Some(Entries { left, value: None, rest: None, span, path, shared, tag: None, probe })
    }
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Fault> {
        self.value = self.left.next();
        let Some((key, _)) = self.value else {
            return Ok(None);
        };
        let name: StrDeserializer<'_, Fault> = key.get_ref().as_ref().into_deserializer();
        // A struct with a tag knows all its own keys; only a variant can meet an unknown one.
        seed.deserialize(name).map(Some).map_err(|fault| {
            fault.in_table(&self.shared, self.tag.as_ref()).at(&key.span(), &self.path)
        })
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Fault> {
        let Some((key, value)) = self.value.take() else {
            return Err(Fault::custom("a key before its value"));
        };
        let path = join(&self.path, key.get_ref());
        let mut node = Node::new(value, path.clone(), self.probe);
        if TAGS.contains(&key.get_ref().as_ref()) {
            node.rest = self.take_rest();
        }
        seed.deserialize(node).map_err(|fault| fault.at(&value.span(), &path))
    }
}

/// A name that chooses a variant, and the entries for it.
struct Choice<'de> {
    chosen: &'de str,
    span: Range<usize>,
    path: String,
    variants: &'static [&'static str],
    rest: Option<Entries<'de>>,
}

impl<'de> EnumAccess<'de> for Choice<'de> {
    type Error = Fault;
    type Variant = Content<'de>;

    fn variant_seed<V: DeserializeSeed<'de>>(
        self,
        seed: V,
    ) -> Result<(V::Value, Content<'de>), Fault> {
        let name: StrDeserializer<'_, Fault> = self.chosen.into_deserializer();
        let variant = seed.deserialize(name).map_err(|fault| fault.at(&self.span, &self.path))?;
        let key = TAGS.into_iter().find(|tag| self.path.rsplit('.').next() == Some(tag));
        let tag = key.map(|key| Tag { key, value: self.chosen.to_owned(), allowed: self.variants });
        Ok((variant, Content(self.rest.map(|rest| Entries { tag, ..rest }))))
    }
}

/// What a variant holds: the entries of the table which are not the tag's struct's own.
struct Content<'de>(Option<Entries<'de>>);

impl<'de> Content<'de> {
    fn visit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.0 {
            Some(entries) => entries.visit(visitor),
            None => Err(Fault::custom("a name without keys of its own")),
        }
    }
}

impl<'de> VariantAccess<'de> for Content<'de> {
    type Error = Fault;

    fn unit_variant(self) -> Result<(), Fault> {
        let Some(mut entries) = self.0 else {
            return Ok(());
        };
        match entries.left.next() {
            None => Ok(()),
            Some((key, _)) => Err(Fault::unknown_field(key.get_ref(), &[])
                .in_table(&entries.shared, entries.tag.as_ref())
                .at(&key.span(), &entries.path)),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Fault> {
        seed.deserialize(self)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.visit(visitor)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _len: usize, visitor: V) -> Result<V::Value, Fault> {
        self.visit(visitor)
    }
}

impl<'de> Deserializer<'de> for Content<'de> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.visit(visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

fn join(table: &str, key: &str) -> String {
    if table.is_empty() { key.to_owned() } else { format!("{table}.{key}") }
}
