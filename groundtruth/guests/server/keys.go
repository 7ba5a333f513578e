package main

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

func (s *server) keys() error {
	var errs []error
	add := func(kind, description, payload string, ring int) int {
		id, err := unix.AddKey(kind, description, []byte(payload), ring)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s %s: %w", kind, description, err))
		}
		return id
	}
	// What is in the user keyring may be used by those in whose session it hangs; a service
	// of systemd begins without it.
	_, err := unix.KeyctlJoinSessionKeyring("outsight-session")
	errs = append(errs, err)
	_, err = unix.KeyctlInt(unix.KEYCTL_LINK, unix.KEY_SPEC_USER_KEYRING, unix.KEY_SPEC_SESSION_KEYRING, 0, 0)
	errs = append(errs, err)
	add("user", "outsight:user", "a secret of sixteen", unix.KEY_SPEC_USER_KEYRING)
	ring := add("keyring", "outsight-ring", "", unix.KEY_SPEC_USER_KEYRING)
	inner := add("user", "outsight:inner", "inside the ring", ring)
	add("logon", "outsight:logon", "never readable", ring)
	add("big_key", "outsight:big", string(make([]byte, 3000)), ring)
	revoked := add("user", "outsight:revoked", "x", ring)
	timed := add("user", "outsight:timed", "x", ring)
	ctl := func(command, a, b int) {
		_, err := unix.KeyctlInt(command, a, b, 0, 0)
		if err != nil {
			errs = append(errs, fmt.Errorf("keyctl %d: %w", command, err))
		}
	}
	ctl(unix.KEYCTL_REVOKE, revoked, 0)
	ctl(unix.KEYCTL_SET_TIMEOUT, timed, 1000000)
	errs = append(errs, unix.KeyctlSetperm(inner, 0x3f3f0000))
	add("user", "outsight:session", "of the session", unix.KEY_SPEC_SESSION_KEYRING)
	add("user", "outsight:process", "of the process", unix.KEY_SPEC_PROCESS_KEYRING)
	add("user", "outsight:thread", "of the thread", unix.KEY_SPEC_THREAD_KEYRING)
	return errors.Join(errs...)
}

// binfmt registers two formats, by magic and by extension; the second is off.
func (s *server) binfmt() error {
	const dir = "/proc/sys/fs/binfmt_misc"
	if _, err := os.Stat(dir + "/register"); err != nil {
		if err := unix.Mount("binfmt_misc", dir, "binfmt_misc", 0, ""); err != nil {
			return fmt.Errorf("mount binfmt_misc: %w (module binfmt_misc)", err)
		}
	}
	for _, line := range []string{
		`:outsight-magic:M:4:\x4f\x55\x54\x53:\xff\xff\xff\xf0:` + s.busybox + ":POCF",
		":outsight-ext:E::lab::" + s.busybox + ":",
	} {
		if err := os.WriteFile(dir+"/register", []byte(line), 0); err != nil {
			return fmt.Errorf("register %s: %w", line, err)
		}
	}
	return os.WriteFile(dir+"/outsight-ext", []byte("0"), 0)
}
