//! Reading files that a recipe names, and the recipe itself: only what is a file, and only so much of it.

use std::fs::{self, File, FileType};
use std::io::{self, Read};
use std::path::Path;

/// Opens a file.
///
/// # Errors
/// When there is none, or something else: a pipe would be waited for, a device read without end.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    let kind = fs::metadata(path)?.file_type();
    if kind.is_file() {
        return File::open(path);
    }
    Err(io::Error::other(format!("{}, not a file", name(kind))))
}

/// All bytes of a file.
///
/// # Errors
/// As [`open`], and when there are more than `most`.
pub(crate) fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(io::Error::other(format!("a file of more than {most} bytes")));
    }
    Ok(bytes)
}

fn name(kind: FileType) -> &'static str {
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        if kind.is_fifo() {
            return "a named pipe";
        } else if kind.is_socket() {
            return "a socket";
        } else if kind.is_char_device() || kind.is_block_device() {
            return "a device";
        }
    }
    if kind.is_dir() { "a directory" } else { "something else" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_up_to_a_size() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a");
        fs::write(&path, "12345").expect("a file");
        assert_eq!(read(&path, 5).expect("five bytes"), b"12345");
        let told = read(&path, 4).expect_err("too many").to_string();
        assert_eq!(told, "a file of more than 4 bytes");
    }

    #[cfg(unix)]
    #[test]
    fn what_is_no_file_is_named_and_never_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let (pipe, socket) = (folder.path().join("pipe"), folder.path().join("socket"));
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo");
        assert!(made.success());
        let _listens = std::os::unix::net::UnixListener::bind(&socket).expect("a socket");
        for (path, kind) in [
            (&*pipe, "a named pipe"),
            (&*socket, "a socket"),
            (Path::new("/dev/zero"), "a device"),
            (folder.path(), "a directory"),
        ] {
            let told = read(path, 1 << 20).expect_err(kind).to_string();
            assert_eq!(told, format!("{kind}, not a file"));
        }
    }
}
