//! Scripts that make one object a night.

use super::{Harm, Vault, tree_with_sums};
use crate::drills::Home;
use crate::scenarios::at_home;
use crate::servers::Locking;

#[test]
fn archives_of_tar_and_gnupg() {
    let home = Home::new();
    tree_with_sums(&home);
    let vault = Vault::new(&home, Locking::On);
    vault.shell(
        "mkdir -m 700 gnupg; for who in backup other; do
           gpg --homedir gnupg --batch --quiet --pinentry-mode loopback --passphrase '' --quick-generate-key $who@example.org future-default default never
           gpg --homedir gnupg --batch --armor --export-secret-keys $who@example.org > keys/$who.secret.asc
         done; gpgconf --homedir gnupg --kill all",
    );
    let key = format!("lab/lab-{}.tar.zst.gpg", home.hours_ago(2).0.strftime("%Y-%m-%dT%H%M"));
    let back_up = |what: &str, to: &str| {
        vault.shell(&format!(
            "{what} | gpg --homedir gnupg --batch --quiet --trust-model always -r {to}@example.org -e | rclone rcat -q s3:$BUCKET/{key}"
        ));
    };
    back_up("tar -C tree -cf - . | zstd -q", "backup");
    // a sibling that is none
    vault.shell(&format!("rclone copyto -q s3:$BUCKET/{key} s3:$BUCKET/lab/lab-test.tar.zst.gpg"));
    let scenario = at_home(&home, "gnupg-tar", &vault.place("lab"));
    let drilled = vault.passes(&scenario);
    assert_eq!(drilled.report["backup"]["point"]["points_seen"], 1);
    for harm in [Harm::Flip, Harm::Cut] {
        let _harm = vault.damage(&key, harm);
        vault.run(&scenario).ends("FAILED").blames_backup("tool_failed", &[("tool", "gpg")]);
    }
    // nothing at all, well packed and encrypted
    back_up("tar -cf - -T /dev/null | zstd -q", "backup");
    vault.run(&scenario).ends("FAILED").blames_backup("empty_restore", &[]);
    // the good one, to a key that was made yesterday and kept nowhere
    back_up("tar -C tree -cf - . | zstd -q", "other");
    vault.run(&scenario).ends("FAILED").blames_backup("tool_failed", &[("tool", "gpg")]);
    home.write("keys/backup.secret.asc", "no key\n");
    vault.run(&scenario).ends("INCONCLUSIVE").blames_runner("tool_could_not_run", &[("tool", "gpg")]);
}
