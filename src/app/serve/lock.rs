//! One daemon for one ledger, and one for one state.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::{App, AppError, ServeError, private_directory};

/// File name of the locks.
const FILE: &str = "serve.lock";

/// The right to keep schedules. The kernel lets go of it however the process ends.
#[derive(Debug)]
pub struct Claim {
    _held: [File; 2],
}

impl Claim {
    /// Takes it.
    ///
    /// # Errors
    /// [`ServeError::Busy`], or that the locks cannot be written.
    pub fn take(app: &App) -> Result<Self, ServeError> {
        let state = lock(&app.settings.state.0)?;
        Ok(Self { _held: [state, lock(&app.settings.ledger.0)?] })
    }

    /// Whether somebody has it, and the process id that he wrote.
    pub fn holder(app: &App) -> Option<String> {
        let mut file = File::open(app.settings.ledger.0.join(FILE)).ok()?;
        // a lock that can be shared is held by nobody
        if file.try_lock_shared().is_ok() {
            return None;
        }
        let mut pid = String::new();
        file.read_to_string(&mut pid).ok()?;
        Some(pid.trim().to_owned())
    }
}

fn lock(directory: &Path) -> Result<File, ServeError> {
    let path = directory.join(FILE);
    let failed = |source| ServeError::App(AppError::State { path: path.clone(), source });
    private_directory(directory).map_err(failed)?;
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => {
            let mut pid = String::new();
            file.read_to_string(&mut pid).map_err(failed)?;
            return Err(ServeError::Busy { pid: pid.trim().to_owned(), path });
        }
        Err(fs::TryLockError::Error(source)) => return Err(failed(source)),
    }
    file.set_len(0).and_then(|()| file.rewind()).map_err(failed)?;
    writeln!(file, "{}", std::process::id()).map_err(failed)?;
    Ok(file)
}
