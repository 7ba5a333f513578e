package check

import "testing"

func TestUsualPlace(t *testing.T) {
	for name, want := range map[string]bool{
		"/tmp/root/usr/bin/su":                                    true,
		"/var/tmp/dracut.x/initramfs/bin/mount":                   true,
		"/root/chroot/usr/lib/dbus-1.0/dbus-daemon-launch-helper": true,
		"/root/app/node_modules/electron/dist/chrome-sandbox":     true,
		"/tmp/chrome-sandbox":                                     false,
		"/tmp/su":                                                 false,
		"/tmp/bin/bash":                                           false,
		"/tmp/.x/bin/su":                                          false,
		"/root/.cache/root/bin/su":                                true,
		"/dev/shm/sudo":                                           false,
	} {
		if got := usualPlace(name); got != want {
			t.Errorf("%s is where it belongs: %v, not %v", name, got, want)
		}
	}
}

func TestPlantedPlace(t *testing.T) {
	w := &plantWalk{}
	for name, want := range map[string]Severity{
		"/tmp/x": High, "/var/tmp/.x/y": High, "/dev/shm/x": High, "/run/x": High, "/run/user/0/x": High, "/usr/lib/.x/y": High, "/var/.x": High,
		"/root/x": Medium, "/srv/x": "", "/usr/bin/sudo": "", "/run/wrappers/wrappers.a/sudo": "",
	} {
		if got, _, _ := w.place(name); got != want {
			t.Errorf("%s: %q, not %q", name, got, want)
		}
	}
}
