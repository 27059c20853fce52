//! Graphics cards from `/proc/driver/nvidia` and `/sys/class/drm`, so that no vendor library is needed to start.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// A graphics card.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Gpu {
    /// Model name where the driver tells one, else vendor and PCI device number.
    pub name: String,
    /// `nvidia`, `amd`, `intel`, or the PCI vendor number such as `0x1af4`.
    pub vendor: String,
    /// Memory in bytes, when known.
    pub total: Option<u64>,
    /// Free memory in bytes, when known.
    pub free: Option<u64>,
}

/// Longest file read here; they are a few hundred bytes.
const MAX_FILE: usize = 64 * 1024;

/// All cards, sorted by PCI address. `root` is `/` outside tests.
pub(crate) fn all(root: &Path) -> Vec<Gpu> {
    let mut cards = drm(root);
    // The NVIDIA driver's own list has names; its cards may lack a DRM entry (compute cards without modesetting).
    cards.extend(nvidia(root));
    cards.into_values().collect()
}

fn read(path: &Path) -> Option<String> {
    let bytes = fs::read(path).ok()?;
    Some(
        String::from_utf8_lossy(&bytes[..bytes.len().min(MAX_FILE)])
            .trim()
            .to_owned(),
    )
}

fn nvidia(root: &Path) -> BTreeMap<String, Gpu> {
    let Ok(folders) = fs::read_dir(root.join("proc/driver/nvidia/gpus")) else {
        return BTreeMap::new();
    };
    let mut cards = BTreeMap::new();
    for folder in folders.flatten() {
        let Some(text) = read(&folder.path().join("information")) else {
            continue;
        };
        let field = |name: &str| {
            text.lines()
                .find_map(|line| line.split_once(':').filter(|(key, _)| key.trim() == name))
                .map(|(_, v)| v.trim())
        };
        let name = field("Model")
            .filter(|m| !m.is_empty())
            .unwrap_or("NVIDIA graphics card");
        cards.insert(
            folder.file_name().to_string_lossy().to_lowercase(),
            Gpu {
                name: name.to_owned(),
                vendor: "nvidia".into(),
                total: None,
                free: None,
            },
        );
    }
    cards
}

fn drm(root: &Path) -> BTreeMap<String, Gpu> {
    let Ok(entries) = fs::read_dir(root.join("sys/class/drm")) else {
        return BTreeMap::new();
    };
    let mut cards = BTreeMap::new();
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        // `card0` is a card; `card0-HDMI-A-1` is one of its outputs, `renderD128` the same card again.
        if name
            .strip_prefix("card")
            .is_none_or(|n| n.is_empty() || !n.bytes().all(|b| b.is_ascii_digit()))
        {
            continue;
        }
        let device = entry.path().join("device");
        let Some(vendor_id) = read(&device.join("vendor")) else {
            continue;
        };
        let vendor = match vendor_id.as_str() {
            "0x10de" => "nvidia",
            "0x1002" => "amd",
            "0x8086" => "intel",
            other => other,
        }
        .to_owned();
        let bytes = |file: &str| read(&device.join(file))?.parse::<u64>().ok();
        let total = bytes("mem_info_vram_total");
        let free = total
            .zip(bytes("mem_info_vram_used"))
            .map(|(total, used)| total.saturating_sub(used));
        let label = read(&device.join("product_name"))
            .filter(|label| !label.is_empty())
            .unwrap_or_else(|| {
                format!(
                    "{vendor} {}",
                    read(&device.join("device")).unwrap_or_else(|| "graphics card".into())
                )
            });
        // The link's target ends with the PCI address; without a link the card's own name sorts it.
        let address = device
            .canonicalize()
            .ok()
            .and_then(|path| path.file_name().map(|f| f.to_string_lossy().to_lowercase()))
            .filter(|address| address.contains(':'))
            .unwrap_or(name);
        cards.insert(
            address,
            Gpu {
                name: label,
                vendor,
                total,
                free,
            },
        );
    }
    cards
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn no_files_no_cards() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(all(root.path()), []);
    }

    #[test]
    fn one_card_is_listed_once_with_the_best_facts() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let amd = "sys/devices/pci0000:00/0000:03:00.0";
        write(root, &format!("{amd}/vendor"), "0x1002\n");
        write(root, &format!("{amd}/device"), "0x744c\n");
        write(root, &format!("{amd}/mem_info_vram_total"), "25753026560\n");
        write(root, &format!("{amd}/mem_info_vram_used"), "1000\n");
        let nvidia = "sys/devices/pci0000:00/0000:01:00.0";
        write(root, &format!("{nvidia}/vendor"), "0x10de\n");
        write(root, &format!("{nvidia}/device"), "0x2335\n");
        write(
            root,
            "proc/driver/nvidia/gpus/0000:01:00.0/information",
            "Model: \t\t NVIDIA H200\nIRQ: 12\nBus Location: 0000:01:00.0\n",
        );
        for (card, target) in [
            ("card0", amd),
            ("card1", nvidia),
            ("renderD128", amd),
            ("card0-DP-1", amd),
        ] {
            let folder = root.join("sys/class/drm").join(card);
            fs::create_dir_all(&folder).unwrap();
            std::os::unix::fs::symlink(root.join(target), folder.join("device")).unwrap();
        }
        let gpu = |name: &str, vendor: &str, total, free| Gpu {
            name: name.into(),
            vendor: vendor.into(),
            total,
            free,
        };
        assert_eq!(
            all(root),
            [
                gpu("NVIDIA H200", "nvidia", None, None),
                gpu("amd 0x744c", "amd", Some(25_753_026_560), Some(25_753_025_560)),
            ]
        );
    }

    #[test]
    fn nonsense_in_the_files_is_not_a_fault() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "sys/class/drm/card0/device/vendor", "\u{0}\u{1}");
        write(
            root.path(),
            "sys/class/drm/card0/device/mem_info_vram_total",
            "-5 apples",
        );
        write(root.path(), "sys/class/drm/card1/device", "a file, not a folder");
        write(root.path(), "proc/driver/nvidia/gpus/x/information", "no colon at all");
        let cards = all(root.path());
        assert_eq!(cards.len(), 2);
        assert!(cards.iter().all(|card| card.total.is_none()));
    }
}
