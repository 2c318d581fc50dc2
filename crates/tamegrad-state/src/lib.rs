//! The state of a guard as bytes, to be saved with a checkpoint.
//!
//! [`save`] makes the bytes, [`load`] reads them, and [`Guard::resume`] continues from what was read.
//! Both integrations use this crate, so that there is one format. The bytes are a header (a magic, the
//! format, the version that wrote them, the length of the rest), the guard encoded by [postcard], which
//! keeps every float bit for bit, NaN and infinity included, and a checksum of all of it.
//!
//! ```
//! use tamegrad::{Guard, GuardConfig, Layout, Observation, RunFacts, Step};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut guard = Guard::new(Layout::default(), RunFacts::default(), GuardConfig::default());
//! let seen = Observation { step: Step(0), loss: Some(2.3), ..Observation::default() };
//! guard.observe(&seen, &[]);
//! let bytes = tamegrad_state::save(&guard)?;
//! let loaded = tamegrad_state::load(&bytes)?;
//! assert_eq!(loaded.record().rows(), guard.record().rows());
//! # Ok(())
//! # }
//! ```
//!
//! [postcard]: https://postcard.jamesmunns.com

use serde::{Deserialize, Serialize};
use tamegrad::{Guard, OtherModel};
use xxhash_rust::xxh3::xxh3_64;

/// The format that [`save`] writes and [`load`] reads. It changes with every field of the state, because
/// postcard stores no names: `tests/state.rs` shows when.
pub const FORMAT: u32 = 14;

/// What the bytes begin with.
const MAGIC: &[u8] = b"tamegrad guard\n";
/// Bytes of the checksum at the end.
const CHECKSUM_LEN: usize = 8;

/// Why a state cannot be saved, read or used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The bytes are something else.
    #[error(
        "got {len} bytes that begin with {start:?}, want the state of a guard, which begins with \
         \"tamegrad guard\\n\"; pass the bytes that saving the guard returned"
    )]
    NotAState {
        /// Number of bytes.
        len: usize,
        /// The first of them.
        start: String,
    },
    /// The bytes were written in another format.
    #[error(
        "got the state of a guard in format {got}, written by tamegrad {writer}, want format {FORMAT} \
         of tamegrad {}; resume with tamegrad {writer}, or start with a new guard",
        env!("CARGO_PKG_VERSION")
    )]
    OtherFormat {
        /// The format of the bytes.
        got: u32,
        /// The version of tamegrad that wrote them.
        writer: String,
    },
    /// The bytes begin as they should, but the header cannot be read.
    #[error(
        "got {len} bytes of a guard's state, want a header with format and length; the checkpoint was \
         truncated or damaged: load another one, or start with a new guard"
    )]
    NoHead {
        /// Number of bytes.
        len: usize,
    },
    /// Bytes are missing at the end, or there are too many.
    #[error(
        "got {got} bytes of a guard's state, want {want} as its header says; the checkpoint was \
         truncated or extended: load another one, or start with a new guard"
    )]
    Length {
        /// Number of bytes.
        got: usize,
        /// Number that the header says.
        want: u64,
    },
    /// Bytes have changed.
    #[error(
        "the state of a guard is damaged: got checksum {got:016x}, want {want:016x}; load another \
         checkpoint, or start with a new guard"
    )]
    Damaged {
        /// The checksum of the bytes.
        got: u64,
        /// The checksum that was written behind them.
        want: u64,
    },
    /// The bytes are complete but not a valid guard.
    #[error(
        "got {len} bytes of a guard's state that are complete but not a valid guard ({why}), want what \
         tamegrad {} saved; start with a new guard",
        env!("CARGO_PKG_VERSION")
    )]
    NoGuard {
        /// Number of bytes.
        len: usize,
        /// What does not fit.
        why: String,
    },
    /// The state belongs to another model.
    #[error(transparent)]
    OtherModel(#[from] OtherModel),
    /// The state could not be written.
    #[error("the state of a guard could not be written: {0}")]
    Unwritten(postcard::Error),
}

/// What stands between the magic and the guard.
#[derive(Serialize, Deserialize)]
struct Head<'a> {
    format: u32,
    writer: &'a str,
    /// Bytes of the guard.
    len: u64,
}

/// Serialises the state of a guard: everything but its options and its snapshots.
///
/// # Errors
/// [`StateError::Unwritten`], if memory for the bytes is refused.
pub fn save(guard: &Guard) -> Result<Vec<u8>, StateError> {
    seal(&postcard::to_allocvec(guard).map_err(StateError::Unwritten)?)
}

/// Head and checksum around the bytes of a guard: what the tests of damaged guards need.
#[doc(hidden)]
pub fn seal(guard: &[u8]) -> Result<Vec<u8>, StateError> {
    let head = Head { format: FORMAT, writer: env!("CARGO_PKG_VERSION"), len: guard.len() as u64 };
    let mut bytes = MAGIC.to_vec();
    bytes.extend(postcard::to_allocvec(&head).map_err(StateError::Unwritten)?);
    bytes.extend(guard);
    bytes.extend(xxh3_64(&bytes).to_le_bytes());
    Ok(bytes)
}

/// Reads what [`save`] made, for [`Guard::resume`]. Memory is bounded by a multiple of the bytes.
///
/// # Errors
/// [`StateError`] if the bytes are something else, in another format, truncated or damaged.
pub fn load(bytes: &[u8]) -> Result<Guard, StateError> {
    let no_head = StateError::NoHead { len: bytes.len() };
    let Some(after_magic) = bytes.strip_prefix(MAGIC) else {
        let start = String::from_utf8_lossy(&bytes[..bytes.len().min(MAGIC.len())]).into_owned();
        let other = StateError::NotAState { len: bytes.len(), start };
        return Err(if MAGIC.starts_with(bytes) { no_head } else { other });
    };
    let Ok((head, rest)) = postcard::take_from_bytes::<Head<'_>>(after_magic) else {
        return Err(no_head);
    };
    if head.format != FORMAT {
        return Err(StateError::OtherFormat { got: head.format, writer: head.writer.to_owned() });
    }
    let head_len = (bytes.len() - rest.len()) as u64;
    let want = head_len.saturating_add(head.len).saturating_add(CHECKSUM_LEN as u64);
    if bytes.len() as u64 != want {
        return Err(StateError::Length { got: bytes.len(), want });
    }
    let (body, checksum) = rest.split_at(rest.len() - CHECKSUM_LEN);
    let want = checksum.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
    let got = xxh3_64(&bytes[..bytes.len() - CHECKSUM_LEN]);
    if got != want {
        return Err(StateError::Damaged { got, want });
    }
    guard_of(body).map_err(|why| StateError::NoGuard { len: bytes.len(), why })
}

fn guard_of(body: &[u8]) -> Result<Guard, String> {
    let (guard, rest) =
        postcard::take_from_bytes::<Guard>(body).map_err(|error| error.to_string())?;
    if !rest.is_empty() {
        return Err(format!("{} bytes are left over", rest.len()));
    }
    if guard.validate() {
        Ok(guard)
    } else {
        Err("its tensors, layers or clocks do not fit together".to_owned())
    }
}
