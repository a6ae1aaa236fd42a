//! The file on disk: its folder, the lock that keeps a second process out, and its connections.

use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use parking_lot::Mutex;
use rusqlite::{Connection, OpenFlags};

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

/// How long a statement waits for a lock that another program (a shell, a backup) holds on the file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// The database file, as this process uses it.
pub(super) struct DatabaseFile {
    pub path: PathBuf,
    pages_max: Option<u32>,
    /// The advisory lock on `<file>.lock`; `None`: not taken. A file of its own, because a database file must
    /// not be opened and closed behind SQLite's back: closing any handle of it drops the POSIX locks that the
    /// process has on it.
    lock: Mutex<Option<File>>,
    /// The file that was opened first. Another file under its path is not served without a restart.
    first: Mutex<Option<Metadata>>,
    /// A commit usually changes one page of it. Truncating it is one write, whatever the number of rows.
    pub journal: Journal,
}

/// Of a file that is ready to serve: the connection that writes, those that load and list, and the token floor.
type OpenedFile = (SqliteWriter, [Connection; 2], FencingToken);

impl DatabaseFile {
    /// Does not touch the file.
    pub fn new(path: PathBuf, pages_max: Option<u32>) -> DatabaseFile {
        DatabaseFile {
            path,
            pages_max,
            lock: Mutex::default(),
            first: Mutex::default(),
            journal: Journal::of_pages(row_slots::ROW_BYTES),
        }
    }

    pub fn open(&self) -> Result<OpenedFile, StoreError> {
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
    pub fn check(&self) -> Result<(), StoreError> {
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
    pub fn release(&self) {
        self.lock.lock().take();
    }

    fn has_served(&self) -> bool {
        self.first.lock().is_some()
    }

    /// Creates the folder and the file if they are missing. Returns the path without links, so that a file has
    /// one lock whatever path leads to it.
    fn create(&self) -> io::Result<PathBuf> {
        let path = std::path::absolute(&self.path)?;
        let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        create_folder(folder)?;
        // No other user of the machine may read the file: tickets are capabilities.
        let mut options = OpenOptions::new();
        match options.write(true).create_new(true).mode(0o600).open(&path) {
            Ok(file) => {
                file.sync_all()?;
                sync_folder(folder)?;
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        path.canonicalize()
    }

    fn take_lock(&self, path: &Path) -> Result<(), StoreError> {
        let mut held = self.lock.lock();
        if held.is_some() {
            return Ok(());
        }
        let mut lock_path = OsString::from(path);
        lock_path.push(".lock");
        let mut options = OpenOptions::new();
        let options = options.append(true).create(true).mode(0o600);
        let file = options.open(&lock_path);
        let file = file.map_err(|error| self.io_failure(&error))?;
        match file.try_lock() {
            Ok(()) => *held = Some(file),
            Err(TryLockError::WouldBlock) => {
                let why = "another process serves it; a file serves one process";
                return Err(self.about(StoreError::Unusable(why.to_owned())));
            }
            Err(TryLockError::Error(error)) => return Err(self.io_failure(&error)),
        }
        Ok(())
    }

    fn connect(&self, path: &Path) -> Result<OpenedFile, StoreError> {
        let unopened = |error| error::unopened(error, self.has_served());
        let mut writer = connection(path, OpenFlags::SQLITE_OPEN_READ_WRITE, WRITER_CACHE_KIB)
            .map_err(unopened)?;
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
        empty_log(&writer.connection).map_err(unopened)?;
        let token_floor = read::token_floor(&writer.connection).map_err(unopened)?;
        let access = OpenFlags::SQLITE_OPEN_READ_ONLY;
        let reader = || connection(path, access, READER_CACHE_KIB).map_err(unopened);
        Ok((writer, [reader()?, reader()?], token_floor))
    }

    /// Sets up the writing connection. Returns the journal mode in force: SQLite does not fail if it cannot set
    /// the one asked for.
    fn prepare_writer(&self, connection: &Connection) -> rusqlite::Result<String> {
        let mode =
            connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
        connection.pragma_update(None, "journal_size_limit", LOG_BYTES_KEPT)?;
        if let Some(pages) = self.pages_max {
            connection.pragma_update(None, "max_page_count", pages)?;
        }
        Ok(mode)
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

fn connection(path: &Path, access: OpenFlags, cache_kib: i32) -> rusqlite::Result<Connection> {
    let flags = access | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "cache_size", -cache_kib)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    Ok(connection)
}

/// Creates the folder and its missing parents, and syncs each new entry.
fn create_folder(folder: &Path) -> io::Result<()> {
    let Some(parent) = folder.parent().filter(|_| !folder.is_dir()) else {
        return Ok(());
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
        let file = DatabaseFile::new(path, None);
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
        let writer = &writer.connection;
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
