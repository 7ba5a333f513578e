package check

import (
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/linux/synth"
	"github.com/outsight-vmi/outsight/virt"
)

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
		"/root/x": Medium, "/srv/x": "", "/usr/bin/sudo": "", "/run/wrappers/wrappers.a/sudo": "", "/run/setuid-programs/sudo": "", "/run/privileged/bin/su": "",
	} {
		if got, _, _ := w.place(name, "tmpfs"); got != want {
			t.Errorf("%s: %q, not %q", name, got, want)
		}
	}
	for name, want := range map[string]Severity{"/run/x": "", "/run/timeshift/1/backup/usr/x": "", "/tmp/x": High} {
		if got, _, _ := w.place(name, "ext4"); got != want {
			t.Errorf("%s on a disk: %q, not %q", name, got, want)
		}
	}
}

// TestPlantBudget: what fills one place leaves enough for all others, and a busy one is still searched whole.
func TestPlantBudget(t *testing.T) {
	left := maxPlantCost
	for _, folder := range plantPlaces {
		got := plantBudget(folder, left)
		if want := 8192 * fileCost; below(folder, places.personal) && got != want || !below(folder, places.personal) && got != perPlantPlace {
			t.Errorf("%s: %d", folder, got)
		}
		left -= min(got, left)
	}
	if got := plantBudget("/tmp", 5); got != 5 {
		t.Errorf("with little left: %d", got)
	}
	if perPlantPlace < 10_000*fileCost+500_000*nameCost {
		t.Error("10000 files and half a million names that nothing has any more are too much")
	}
}

// TestRunsNosuid: the setuid bit of a program that runs has no effect where its file is mounted nosuid, and the same program elsewhere has.
func TestRunsNosuid(t *testing.T) {
	g := synth.New(synth.Options{})
	g.Add(synth.Process{PID: 1, Comm: "init"})
	mount := g.Mount("/mnt")
	g.Set(mount+g.Member("mount", "mnt"), "vfsmount", "mnt_flags", 1|4)
	s, err := linux.Open(t.Context(), g.Memory, kernel.Options{})
	if err != nil {
		t.Fatal(err)
	}
	o, err := kobj.LayoutOf(s.Walker, "a mount", func(r *kobj.Resolver, o *plantLayout) {
		o.fileMnt, o.mntFlags = r.Field("file", "f_path.mnt"), r.Field("vfsmount", "mnt_flags")
	})
	if err != nil {
		t.Fatal(err)
	}
	w := &plantWalk{s: &Subject{}, o: o, r: s.Reader()}
	for name, want := range map[string]bool{"/mnt/x": true, "/tmp/x": false} {
		p := &program{Process: &linux.Process{}, exe: programFile{file: virt.Addr(g.File(name))}}
		p.Exe = name
		if got := w.nosuid(p); got != want || w.r.Err != nil {
			t.Errorf("%s: nosuid: %t, %v", name, got, w.r.Err)
		}
		severity, sure, what, seen := w.runs(p, 0o4755, High, Likely, "lies there")
		if quiet := severity == Medium && sure == Possible && strings.Contains(what, "without effect") && strings.HasSuffix(seen, withoutEffect); quiet != want || !want && severity != High {
			t.Errorf("%s: %s, %s: %s (%s)", name, severity, sure, what, seen)
		}
	}
}
