//! Which files a checkpoint is made of: the file itself, those of an index, those of a folder.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use tamegrad_runs::{Notices, ReadError};

use super::header::{message, offset_of};
use super::quoted;
use crate::files::{entries, open};

/// The longest index that is read, as for a header.
const INDEX_BYTES_MAX: u64 = 100_000_000;
const INDEX_ENDING: &str = ".safetensors.index.json";
const WANTED_INDEX: &str = "a shard index, `{\"weight_map\": {TENSOR: FILE}}`";

/// The files of a checkpoint.
#[derive(Debug, Default)]
pub(super) struct Shards {
    /// In the order of their names.
    pub(super) files: Vec<PathBuf>,
    /// The tensors of the index, if there is one, each with the place of its file in `files`.
    pub(super) weights: Vec<(String, usize)>,
    /// The index.
    pub(super) index: Option<PathBuf>,
    /// Whether a file was named itself.
    pub(super) is_one: bool,
}

/// Finds the files.
///
/// # Errors
/// [`ReadError`] if the path or an index cannot be read, or a folder holds nothing to scan.
pub(super) fn find(path: &Path, notices: &mut Notices) -> Result<Shards, ReadError> {
    let metadata = fs::metadata(path).map_err(|error| ReadError::io(path, error))?;
    if metadata.is_dir() {
        return of_folder(path, notices);
    }
    let is_index = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
    if is_index && metadata.is_file() {
        return of_index(path, metadata.len(), notices);
    }
    // Whatever is wrong with it is found when it is opened.
    Ok(Shards { files: vec![path.to_owned()], is_one: true, ..Shards::default() })
}

fn of_folder(folder: &Path, notices: &mut Notices) -> Result<Shards, ReadError> {
    let paths = entries(folder).map_err(|error| ReadError::io(folder, error))?;
    let ending = |ending: &'static str| {
        paths.iter().filter(move |path| {
            path.file_name().and_then(OsStr::to_str).is_some_and(|name| name.ends_with(ending))
        })
    };
    let preferred =
        ending(INDEX_ENDING).find(|path| path.ends_with("model.safetensors.index.json"));
    if let Some(path) = preferred.or_else(|| ending(INDEX_ENDING).next()) {
        let metadata = fs::metadata(path).map_err(|error| ReadError::io(path, error))?;
        return of_index(path, metadata.len(), notices);
    }
    let files: Vec<PathBuf> = ending(".safetensors").cloned().collect();
    if !files.is_empty() {
        return Ok(Shards { files, ..Shards::default() });
    }
    let pickles = ["bin", "pt", "pth", "ckpt"];
    let is_pickle = |path: &&PathBuf| {
        path.extension().is_some_and(|extension| pickles.iter().any(|pickle| extension == *pickle))
    };
    let found = match paths.iter().find(is_pickle).and_then(|path| path.file_name()) {
        Some(name) => format!("a folder with only {}", quoted(&name.to_string_lossy())),
        None => "a folder without one".to_owned(),
    };
    let wanted = "a `.safetensors` file; hint: pickles are not loaded; convert them to safetensors";
    Err(ReadError::broken(folder, 0, found, wanted))
}

#[derive(Deserialize)]
struct Index {
    weight_map: WeightMap,
}

/// The tensors with the places of their files, and the files in the order in which they came.
#[derive(Default)]
struct WeightMap {
    weights: Vec<(String, usize)>,
    files: Vec<String>,
}

impl<'de> Deserialize<'de> for WeightMap {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        json.deserialize_map(Weights)
    }
}

struct Weights;

impl<'de> Visitor<'de> for Weights {
    type Value = WeightMap;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors and their files")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<WeightMap, A::Error> {
        let mut map = WeightMap::default();
        let mut places: HashMap<String, usize> = HashMap::new();
        while let Some((name, file)) = members.next_entry::<String, String>()? {
            let place = places.get(&file).copied().unwrap_or_else(|| {
                map.files.push(file.clone());
                places.insert(file, map.files.len() - 1);
                map.files.len() - 1
            });
            map.weights.push((name, place));
        }
        Ok(map)
    }
}

fn of_index(path: &Path, len: u64, notices: &mut Notices) -> Result<Shards, ReadError> {
    let broken = |offset: usize, found: String| {
        Err(ReadError::broken(path, offset as u64, found, WANTED_INDEX))
    };
    let mut text = Vec::new();
    let file = open(path).map_err(|error| ReadError::io(path, error))?;
    // One byte more tells a file that is longer, also where its length is not known.
    file.take(INDEX_BYTES_MAX + 1)
        .read_to_end(&mut text)
        .map_err(|error| ReadError::io(path, error))?;
    if text.len() as u64 > INDEX_BYTES_MAX {
        return broken(0, format!("{len} bytes, more than the 100,000,000 that are read"));
    }
    let WeightMap { weights, files: names } = match serde_json::from_slice::<Index>(&text) {
        Ok(index) => index.weight_map,
        Err(error) => return broken(offset_of(&text, &error), message(&error)),
    };
    let folder = path.parent().unwrap_or(Path::new(""));
    let paths: Vec<Option<PathBuf>> = names.iter().map(|name| below(folder, name)).collect();
    for (name, _) in names.iter().zip(&paths).filter(|(_, path)| path.is_none()) {
        let name = quoted(name);
        let text = format!("got the file {name}, want one next to the index; it is left out");
        notices.push(path, None, text);
    }
    let mut files: Vec<PathBuf> = paths.iter().flatten().cloned().collect();
    files.sort();
    files.dedup();
    let place = |path: &Option<PathBuf>| files.binary_search(path.as_ref()?).ok();
    let places: Vec<Option<usize>> = paths.iter().map(place).collect();
    let weights = weights.into_iter().filter_map(|(name, at)| Some((name, places[at]?))).collect();
    Ok(Shards { files, weights, index: Some(path.to_owned()), is_one: false })
}

/// The path of a file beside the index or below, in the one way to write it; `None` for any other:
/// an index may come from anyone.
fn below(folder: &Path, name: &str) -> Option<PathBuf> {
    let is_plain = |part| matches!(part, Component::Normal(_));
    let is_below = !name.is_empty() && Path::new(name).components().all(is_plain);
    is_below.then(|| folder.join(Path::new(name).components().collect::<PathBuf>()))
}
