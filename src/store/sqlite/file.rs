//! The file on disk: its folder, the lock that keeps a second process out, and its connections.

use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use parking_lot::Mutex;
use rusqlite::{Connection, OpenFlags};
use rustix::fs::FlockOperation;

use super::super::StoreError;
use super::super::journal::Journal;
use super::write::SqliteWriter;
use super::{error, read, row_slots, schema};
use crate::lock::FencingToken;

/// Number of prepared statements that a connection caches: enough for all there are.
const STATEMENTS_MAX: usize = 64;

/// A commit that finds this many pages (16 MiB) in the write-ahead log moves them into the file. A smaller
/// value would make more commits pay for that, a larger one would make each of these commits, and a restart,
/// slower.
const CHECKPOINT_PAGES: u32 = 4_000;

/// The file of the write-ahead log is cut back to this size, in bytes, after a burst made it grow.
const LOG_BYTES_KEPT: u32 = 64 << 20;

/// Sizes of the page caches, in KiB. Readers need less: they find most pages in the cache of the operating
/// system.
const WRITER_CACHE_KIB: i32 = 16 << 10;
const READER_CACHE_KIB: i32 = 4 << 10;

/// How long a statement waits for a lock that another program holds on the file.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// The database file, as this process uses it.
pub(super) struct DatabaseFile {
    pub(super) path: PathBuf,
    busy_timeout: Duration,
    pages_max: Option<u32>,
    /// The advisory lock on `<file>.lock`; `None`: not taken. A file of its own, because a database file must
    /// not be opened and closed behind SQLite's back: closing any handle of it drops the POSIX locks that the
    /// process has on it.
    lock: Mutex<Option<File>>,
    /// The file that was opened first. Another file under its path is not served without a restart.
    first: Mutex<Option<Metadata>>,
    /// A commit usually changes one page of it. Truncating it is one write, whatever the number of rows.
    pub(super) journal: Journal,
}

/// Of a file that is ready to serve: the connection that writes, those that load and list, and the token floor.
type OpenedFile = (SqliteWriter, [Connection; 2], FencingToken);

impl DatabaseFile {
    /// Does not touch the file.
    pub(super) fn new(
        path: PathBuf,
        busy_timeout: Duration,
        pages_max: Option<u32>,
    ) -> DatabaseFile {
        DatabaseFile {
            path,
            busy_timeout,
            pages_max,
            lock: Mutex::default(),
            first: Mutex::default(),
            journal: Journal::of_pages(row_slots::ROW_BYTES),
        }
    }

    pub(super) fn open(&self) -> Result<OpenedFile, StoreError> {
        self.check()?;
        let path = self.create().map_err(|error| self.io_failure(&error))?;
        self.take_lock(&path)?;
        let opened = self.connect(&path).map_err(|error| self.about(error))?;
        let metadata = fs::metadata(&self.path).map_err(|error| self.io_failure(&error))?;
        self.first.lock().get_or_insert(metadata);
        Ok(opened)
    }

    /// Checks that the path still leads to the file that was opened first: commits to a file that was deleted
    /// or replaced would be missing at the next start.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: the file that was opened first was deleted or replaced.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        let first = self.first.lock();
        let Some(first) = &*first else {
            return Ok(());
        };
        // A file is identified by its device and its inode, not by its path.
        let file = |metadata: &Metadata| (metadata.dev(), metadata.ino());
        let what = match fs::metadata(&self.path) {
            Ok(found) if file(&found) == file(first) => return Ok(()),
            Ok(_) => "replaced by another file",
            Err(_) => "deleted, or moved away",
        };
        Err(StoreError::Unavailable(format!(
            "the file {} was {what} while it was served; put it back, or restart the server to serve what is \
             there now",
            self.path.display()
        )))
    }

    /// Releases the lock, so that another process can serve the file.
    pub(super) fn release(&self) {
        self.lock.lock().take();
    }

    fn has_served(&self) -> bool {
        self.first.lock().is_some()
    }

    /// Creates the folder and the file if they are missing. Returns the path without links, so that a file has
    /// one lock whatever path leads to it.
    fn create(&self) -> io::Result<PathBuf> {
        let name = self.path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let folder = match self.path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        create_folder(folder)?;
        let path = match self.path.canonicalize() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                folder.canonicalize()?.join(name)
            }
            found => found?,
        };
        // No other user of the machine may read the file: tickets are capabilities.
        let mut options = OpenOptions::new();
        match options.write(true).create_new(true).mode(0o600).open(&path) {
            Ok(file) => {
                file.sync_all()?;
                sync_folder(path.parent().unwrap_or(folder))?;
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        Ok(path)
    }

    fn take_lock(&self, path: &Path) -> Result<(), StoreError> {
        let mut held = self.lock.lock();
        if held.is_some() {
            return Ok(());
        }
        let mut lock_path = OsString::from(path);
        lock_path.push(".lock");
        let mut options = OpenOptions::new();
        let file = options
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&lock_path)
            .map_err(|error| self.io_failure(&error))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => *held = Some(file),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let why = "another process serves it; a file serves one process";
                return Err(self.about(StoreError::Unusable(why.to_owned())));
            }
            Err(error) => return Err(self.io_failure(&error.into())),
        }
        Ok(())
    }

    fn connect(&self, path: &Path) -> Result<OpenedFile, StoreError> {
        let unopened = |error| error::unopened(error, self.has_served());
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut writer = Connection::open_with_flags(path, flags).map_err(unopened)?;
        let mode = self.prepare_writer(&writer).map_err(unopened)?;
        if mode != "wal" {
            return Err(StoreError::Unusable(format!(
                "its file system allows the journal mode {mode} only, and WAL is needed"
            )));
        }
        schema::migrate(&mut writer, unopened)?;
        let writer = SqliteWriter::new(writer, &self.journal, unopened)?;
        // What an earlier process or connection left in the write-ahead log may never have been synced. Moving
        // it into the file writes and syncs it again, so that everything that is served from here on is on
        // disk.
        empty_log(writer.connection()).map_err(unopened)?;
        let token_floor = read::token_floor(writer.connection()).map_err(unopened)?;
        let reader = || self.reader(path).map_err(unopened);
        Ok((writer, [reader()?, reader()?], token_floor))
    }

    /// Sets up the writing connection. Returns the journal mode in force: SQLite does not fail if it cannot set
    /// the one asked for.
    fn prepare_writer(&self, connection: &Connection) -> rusqlite::Result<String> {
        connection.busy_timeout(self.busy_timeout)?;
        let mode =
            connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        connection.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)?;
        connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
        connection.pragma_update(None, "journal_size_limit", LOG_BYTES_KEPT)?;
        if let Some(pages) = self.pages_max {
            connection.pragma_update(None, "max_page_count", pages)?;
        }
        connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
        Ok(mode)
    }

    fn reader(&self, path: &Path) -> rusqlite::Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(self.busy_timeout)?;
        connection.pragma_update(None, "cache_size", -READER_CACHE_KIB)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
        Ok(connection)
    }

    /// Adds the path of the file to the text.
    fn about(&self, error: StoreError) -> StoreError {
        let about = |why: String| format!("{} (SQLITE_PATH): {why}", self.path.display());
        match error {
            StoreError::Unusable(why) => StoreError::Unusable(about(why)),
            StoreError::Unavailable(why) => StoreError::Unavailable(about(why)),
            other => other,
        }
    }

    fn io_failure(&self, error: &io::Error) -> StoreError {
        let passes = matches!(
            error.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        );
        self.about(if passes || self.has_served() {
            StoreError::Unavailable(error.to_string())
        } else {
            StoreError::Unusable(error.to_string())
        })
    }
}

/// Creates the folder and its missing parents, and syncs each new entry.
fn create_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let parent = match folder.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    create_folder(parent)?;
    match fs::create_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => sync_folder(parent),
    }
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn empty_log(connection: &Connection) -> rusqlite::Result<()> {
    let busy: bool =
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    if busy {
        log::warn!("another program reads the database; the write-ahead log is emptied later");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened() -> (tempfile::TempDir, OpenedFile) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resources.db");
        let file = DatabaseFile::new(path, BUSY_TIMEOUT, None);
        let opened = file.open().unwrap();
        (folder, opened)
    }

    fn pragma<T: rusqlite::types::FromSql>(connection: &Connection, name: &str) -> T {
        connection
            .pragma_query_value(None, name, |row| row.get(0))
            .unwrap()
    }

    #[test]
    fn commits_are_synced_to_a_write_ahead_log() {
        let (_folder, (writer, ..)) = opened();
        let writer = writer.connection();
        assert_eq!(pragma::<String>(writer, "journal_mode"), "wal");
        const FULL: i64 = 2;
        assert_eq!(pragma::<i64>(writer, "synchronous"), FULL);
        assert!(pragma::<bool>(writer, "foreign_keys"));
        let pages: u32 = pragma(writer, "wal_autocheckpoint");
        assert_eq!(pages, CHECKPOINT_PAGES);
    }

    #[test]
    fn readers_cannot_write() {
        let (_folder, (_, readers, _)) = opened();
        for reader in &readers {
            assert_eq!(pragma::<String>(reader, "journal_mode"), "wal");
            assert!(reader.execute("DELETE FROM resource", []).is_err());
        }
    }
}
