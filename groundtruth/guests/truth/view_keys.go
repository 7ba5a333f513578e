package main

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

func init() {
	// /proc/keys has those keys that root may view, not all; keyctl(2) has the names in
	// full. How long a key stays is only told roughly: whether it does is compared.
	views["keys"] = func(emit func(any) error) error {
		// Whoever runs this holds its keyrings, and only while it runs.
		ours := map[int64]bool{}
		for _, ring := range []int{unix.KEY_SPEC_SESSION_KEYRING, unix.KEY_SPEC_USER_SESSION_KEYRING, unix.KEY_SPEC_USER_KEYRING} {
			if id, err := unix.KeyctlGetKeyringID(ring, false); err == nil {
				ours[int64(id)] = true
			}
		}
		return lines("/proc/keys", func(line string) error {
			// Serial number, flags, usage, time left, permissions, uid, gid, type, description.
			f := strings.Fields(line)
			if len(f) < 9 {
				return fmt.Errorf("%q: too few fields", line)
			}
			serial, err := strconv.ParseInt(f[0], 16, 64)
			if err != nil {
				return fmt.Errorf("%q: %w", line, err)
			}
			row := map[string]any{"serial": serial, "perm": f[4], "usage": number(f[2]), "flags": nil, "uid": number(f[5]), "gid": number(f[6])}
			if ours[serial] {
				delete(row, "usage")
			}
			if f[6] == "-1" || f[6] == "65534" {
				delete(row, "gid") // of no group, or of one outside of the namespace
			}
			if flags := strings.Trim(f[1], "I-N"); flags != "" {
				row["flags"] = strings.Map(func(r rune) rune {
					if strings.ContainsRune("DRQUi", r) {
						return r
					}
					return -1
				}, flags)
			}
			if f[3] == "perm" {
				row["expires"] = nil
			}
			// type;uid;gid;permissions;description
			text, err := unix.KeyctlString(unix.KEYCTL_DESCRIBE, int(serial))
			if parts := strings.SplitN(text, ";", 5); err == nil && len(parts) == 5 {
				row["type"], row["description"] = parts[0], parts[4]
				// What is behind the description of a user's key is how long its payload is: both
				// are charged.
				_, size, ok := strings.Cut(line, " "+parts[4]+": ")
				if n, err := strconv.Atoi(size); ok && err == nil && parts[0] == "user" && strings.Contains(f[1], "Q") {
					row["quota"] = len(parts[4]) + 1 + n
				}
			}
			return emit(row)
		})
	}
}
