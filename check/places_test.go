package check

import "testing"

func TestPlaces(t *testing.T) {
	for name, want := range map[string][3]bool{ // temporary, packaged, strange
		"/usr/sbin/sshd":              {false, true, false},
		"/usr":                        {false, true, false},
		"/usrlocal/x":                 {false, false, false},
		"/tmp/x":                      {true, false, true},
		"/tmpx/y":                     {false, false, false},
		"/var/tmp/../../usr/bin/true": {false, true, false},
		"/usr/lib/../../tmp/x":        {true, false, true},
		"/usr/lib/.x/y.so":            {true, false, true},
		"/home/.local/bin/x":          {false, false, true},
		"/root/x":                     {false, false, true},
		"/dev/shm/x":                  {true, false, true},
		"/var/run/user/0/x":           {true, false, true},
		"/nix/store/0abc-x/bin/x":     {false, true, false},
		"/srv/app/x":                  {false, false, false},
		"x":                           {false, false, true},
		".x":                          {true, false, true},
	} {
		if got := [3]bool{temporary(name), packaged(name), strange(name)}; got != want {
			t.Errorf("%s: temporary, packaged, strange are %v, not %v", name, got, want)
		}
	}
}

func TestStrangePaths(t *testing.T) {
	for command, want := range map[string]string{
		"/sbin/modprobe":                  "",
		"/usr/bin/modprobe -q":            "",
		"/bin/false":                      "",
		"/nix/store/1-kmod/sbin/modprobe": "",
		"/opt/modprobe":                   "which is not where any distribution has modprobe",
		"/usr/lib/x/modprobe":             "which is not where any distribution has modprobe",
		"/usr/bin/x":                      "which is not where any distribution has modprobe",
		"":                                "",
		"/init":                           "which is not where any distribution has modprobe",
		"/tmp/x":                          "where everybody may write, or nothing outlives a boot",
		"/root/x":                         "where only a user has programs",
		"../x":                            "which is not an absolute path",
		"/usr/lib/.x":                     "which is hidden",
		"/usr/lib/../../dev/shm/x -a":     "where everybody may write, or nothing outlives a boot",
		"/srv/x":                          "which is not where any distribution has modprobe",
		"/memfd:x":                        "which is in no file system",
		"/usr/bin/x (deleted)":            "which is in no file system",
	} {
		if why, _, _ := strangePath(helper{name: "modprobe_path", command: command}); why != want {
			t.Errorf("%q: %q, not %q", command, why, want)
		}
	}
}

func TestUsualHelpers(t *testing.T) {
	for _, h := range []struct {
		name, command string
		want          Severity
	}{
		{"core_pattern", "core", ""},
		{"core_pattern", "|/lib/systemd/systemd-coredump %P %u", ""},
		{"core_pattern", "|/usr/share/apport/apport -p%p", ""},
		{"core_pattern", "|/usr/libexec/abrt-hook-ccpp %s", ""},
		{"core_pattern", "|/bin/false", ""},
		{"core_pattern", "|/opt/x/collect %p", Low},
		{"core_pattern", "|/srv/x %p", Low},
		{"core_pattern", "|/dev/shm/x", High},
		{"uevent_helper", "/sbin/mdev", ""},
		{"uevent_helper", "/etc/hotplug", ""},
		{"uevent_helper", "/init", ""},
		{"uevent_helper", "", ""},
		{"uevent_helper", "/opt/x", Medium},
		{"uevent_helper", "/var/lib/x", Medium},
		{"poweroff_cmd", "/sbin/poweroff", ""},
		{"poweroff_cmd", "/usr/bin/x", Medium},
		{"modprobe_path", "/opt/x", High},
		{"the release agent of a control group", "/usr/lib/systemd/systemd-cgroups-agent", ""},
		{"the release agent of a control group", "/srv/x", Low},
		{"the interpreter rosetta of binfmt_misc", "/mnt/rosetta", Low},
		{"the interpreter qemu-arm of binfmt_misc", "/usr/libexec/qemu-binfmt/arm-binfmt-P", ""},
	} {
		if _, got, _ := strangePath(helper{name: h.name, command: h.command}); got != h.want {
			t.Errorf("%s %q: severity %q, not %q", h.name, h.command, got, h.want)
		}
	}
}
