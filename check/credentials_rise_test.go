package check

import "testing"

func TestRisen(t *testing.T) {
	past := func(uid, euid, suid uint32, permitted uint64) pastCredentials {
		return pastCredentials{uids: [4]uint32{uid, euid, suid, euid}, permitted: permitted, userNS: 7}
	}
	const full = 1<<41 - 1
	for name, c := range map[string]struct {
		before, now pastCredentials
		outside     bool // not below
		want        string
	}{
		"nothing":                    {before: past(1000, 1000, 1000, 0), now: past(1000, 1000, 1000, 0)},
		"root drops":                 {before: past(0, 0, 0, full), now: past(1000, 1000, 1000, 0)},
		"to the saved user":          {before: past(1000, 1000, 0, 0), now: past(1000, 0, 0, 0)},
		"by the capability":          {before: past(1000, 1000, 1000, capSetuid), now: past(0, 0, 0, capSetuid)},
		"a new user namespace":       {before: past(1000, 1000, 1000, 0), now: pastCredentials{uids: [4]uint32{1000, 1000, 1000, 1000}, permitted: full, userNS: 9}},
		"root by nobody":             {before: past(1000, 1000, 1000, 0), now: past(0, 0, 0, 0), want: "got the user ID 0"},
		"effective root":             {before: past(1000, 1000, 1000, 0), now: past(1000, 0, 1000, 0), want: "got the effective user ID 0"},
		"capabilities by nobody":     {before: past(1000, 1000, 1000, 0), now: past(1000, 1000, 1000, 1<<21), want: "got the capabilities sys_admin"},
		"out of its user namespace":  {before: past(1000, 1000, 1000, full), now: pastCredentials{uids: [4]uint32{1000, 1000, 1000, 1000}, permitted: full, userNS: 1}, outside: true, want: "is in a user namespace that is not below its own"},
		"root in the namespace only": {before: past(0, 0, 0, full), now: past(0, 0, 0, full)},
	} {
		if got := c.before.risen(&c.now, !c.outside); got != c.want {
			t.Errorf("%s: %q, not %q", name, got, c.want)
		}
	}
}
