//! Room on the disk, before and while bytes come (promise D3).

use std::path::Path;
use std::sync::Arc;

use super::{Bringing, Context, Stop, blocking, partial};
use crate::{DownloadError, PlannedFile};

/// Room for all that is missing of these files together, and the reserve beside it (promise D3)? Each transfer looks again
/// for itself.
pub(crate) async fn room(cx: &Context, root: &Path, files: &[PlannedFile]) -> Result<(), DownloadError> {
    let (files, root, disk_free, reserve) = (
        files.to_vec(),
        root.to_owned(),
        Arc::clone(&cx.disk_free),
        cx.tuning.disk_reserve,
    );
    blocking(move || {
        let missing = |file: &PlannedFile| match file.size {
            Some(size) if std::fs::metadata(&file.path).is_ok_and(|meta| meta.len() == size) => 0,
            size => size.unwrap_or(0).saturating_sub(partial::noted(file)),
        };
        let rest: u64 = files.iter().map(missing).sum();
        let need = if rest == 0 { 0 } else { rest.saturating_add(reserve) };
        match disk_free(&root) {
            Some(free) if free < need => Err(DownloadError::DiskFull { missing: need - free }),
            _ => Ok(()),
        }
    })
    .await
}

impl Bringing<'_> {
    /// Enough room for the rest, and for settings and logs beside it (promise D3)? While bytes come, only the reserve is
    /// defended: the rest was asked for at the beginning.
    pub(super) fn check_space(&self, whole: bool) -> Result<(), Stop> {
        let Some(free) = self.free() else { return Ok(()) };
        let reserve = self.cx.tuning.disk_reserve;
        let need = if whole {
            self.remaining().saturating_add(reserve)
        } else {
            reserve / 2
        };
        if free < need {
            return Err(Stop::Fatal(self.with_missing(DownloadError::DiskFull { missing: 0 })));
        }
        Ok(())
    }

    fn free(&self) -> Option<u64> {
        (self.cx.disk_free)(self.file.path.parent()?)
    }

    fn remaining(&self) -> u64 {
        self.partial.ledger().remaining().unwrap_or(0)
    }

    /// Says how much has to be freed before it can go on.
    pub(super) fn with_missing(&self, error: DownloadError) -> DownloadError {
        let DownloadError::DiskFull { .. } = error else {
            return error;
        };
        let need = self.remaining().saturating_add(self.cx.tuning.disk_reserve);
        DownloadError::DiskFull {
            missing: need.saturating_sub(self.free().unwrap_or(0)).max(1),
        }
    }
}
