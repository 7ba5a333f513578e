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
		"/sbin/modprobe":              "",
		"":                            "",
		"/init":                       "",
		"/etc/hotplug":                "",
		"/tmp/x":                      "where everybody may write, or nothing outlives a boot",
		"/root/x":                     "where only a user has programs",
		"../x":                        "which is not an absolute path",
		"/usr/lib/.x":                 "which is hidden",
		"/usr/lib/../../dev/shm/x -a": "where everybody may write, or nothing outlives a boot",
		"/srv/x":                      "which is where packages put no programs",
		"/memfd:x":                    "which is in no file system",
		"/usr/bin/x (deleted)":        "which is in no file system",
	} {
		if why, _, _ := strangePath(helper{name: "modprobe_path", command: command}); why != want {
			t.Errorf("%q: %q, not %q", command, why, want)
		}
	}
}
