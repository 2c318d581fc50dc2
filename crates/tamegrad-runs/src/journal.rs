//! A stream with a small file beside it: rows are on the disk before they make a batch.

use std::path::PathBuf;

use super::RunError;
use super::disk::{self, remove};
use super::stream::Appender;
use super::table::Table;

/// Rows in the file beside the stream at which it is written anew, if it holds twice what it must.
const RECENT_ROWS_MIN: usize = 4096;

/// A stream that grows batch by batch, and a file with the rows that are not yet in it. That file is
/// appended to at each look, and written anew when most of it has reached the stream.
#[derive(Debug)]
pub(super) struct Journal<T> {
    pub(super) stream: Appender<T>,
    recent: Option<Appender<T>>,
    recent_path: PathBuf,
    /// Rows in the file beside the stream.
    recent_rows: usize,
}

impl<T: Table> Journal<T> {
    pub(super) fn new(stream: Appender<T>, recent_path: PathBuf) -> Self {
        Self { stream, recent: None, recent_path, recent_rows: 0 }
    }

    /// Writes the rows that wait to the stream.
    pub(super) fn flush(&mut self) -> Result<(), RunError> {
        self.stream.flush()?;
        self.stream.sync()
    }

    /// Keeps rows that are not in the stream: `held` are all of these, the last `new` of which are not
    /// in the file either.
    pub(super) fn keep(&mut self, held: &[T], new: usize) -> Result<(), RunError> {
        if held.is_empty() {
            return self.forget();
        }
        let is_stale = self.recent_rows.saturating_add(new) > RECENT_ROWS_MIN.max(2 * held.len());
        match &mut self.recent {
            Some(recent) if !is_stale => {
                let added = &held[held.len() - new.min(held.len())..];
                if !added.is_empty() {
                    recent.append(added)?;
                    self.recent_rows += added.len();
                }
                recent.sync()
            }
            _ => {
                let fresh = disk::fresh(&self.recent_path);
                remove(&fresh)?;
                let mut recent = Appender::create(fresh.clone())?;
                recent.append(held)?;
                recent.sync()?;
                recent.rename(&self.recent_path)?;
                self.recent = Some(recent);
                self.recent_rows = held.len();
                Ok(())
            }
        }
    }

    /// Removes the file beside the stream, which has all rows.
    pub(super) fn forget(&mut self) -> Result<(), RunError> {
        if self.recent.take().is_some() {
            self.recent_rows = 0;
            remove(&self.recent_path)?;
        }
        Ok(())
    }

    /// Writes all rows that wait and the end mark.
    pub(super) fn finish(&mut self) -> Result<(), RunError> {
        self.stream.finish()?;
        self.recent = None;
        remove(&self.recent_path)
    }
}
