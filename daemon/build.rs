//! Puts the commit that is being built into the environment of the compiler, as `RC_GIT_COMMIT`.
//!
//! The value of an `RC_GIT_COMMIT` variable wins (packagers set it); else the repository's files are read, without
//! running git, so a machine without git and a source archive both build. Only the `.git` of this workspace is
//! looked at: an archive unpacked inside another repository is not that repository's commit.

use std::fs;
use std::path::{Path, PathBuf};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=RC_GIT_COMMIT");
    let workspace = std::env::var("CARGO_MANIFEST_DIR").map(PathBuf::from).unwrap_or_default().join("..");
    let given = std::env::var("RC_GIT_COMMIT").ok().filter(|value| is_word(value));
    let commit = given.or_else(|| commit_of(&workspace)).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo:rustc-env=RC_GIT_COMMIT={commit}");
}

fn commit_of(workspace: &Path) -> Option<String> {
    let git_dir = git_dir_of(workspace)?;
    let shared = match fs::read_to_string(git_dir.join("commondir")) {
        Ok(path) => git_dir.join(path.trim()),
        Err(_) => git_dir.clone(),
    };
    // A path that does not exist would make cargo run this script on every build.
    for watched in [git_dir.join("HEAD"), shared.join("refs/heads"), shared.join("packed-refs")] {
        if watched.exists() {
            println!("cargo:rerun-if-changed={}", watched.display());
        }
    }
    let head = fs::read_to_string(git_dir.join("HEAD")).ok()?;
    let commit = match head.trim().strip_prefix("ref: ") {
        None => head.trim().to_owned(),
        Some(name) => fs::read_to_string(shared.join(name))
            .ok()
            .map(|text| text.trim().to_owned())
            .or_else(|| packed(&shared, name))?,
    };
    is_word(&commit).then(|| commit.chars().take(12).collect())
}

/// `.git` is a directory, or in a linked work tree a file that names one.
fn git_dir_of(workspace: &Path) -> Option<PathBuf> {
    let entry = workspace.join(".git");
    if entry.is_dir() {
        return Some(entry);
    }
    let text = fs::read_to_string(&entry).ok()?;
    Some(workspace.join(text.trim().strip_prefix("gitdir: ")?))
}

fn packed(shared: &Path, name: &str) -> Option<String> {
    let refs = fs::read_to_string(shared.join("packed-refs")).ok()?;
    let line = refs.lines().find(|line| line.split_once(' ').is_some_and(|(_, found)| found == name))?;
    line.split_once(' ').map(|(commit, _)| commit.to_owned())
}

fn is_word(value: &str) -> bool {
    !value.is_empty()
        && value.len() <= 64
        && value.chars().all(|c| c.is_ascii_alphanumeric() || ".-_".contains(c))
}
