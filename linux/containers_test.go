package linux

import "testing"

func TestPodOf(t *testing.T) {
	const uid = "0f2e1d3c-1111-2222-3333-444455556666"
	for path, want := range map[string]string{
		"/kubepods/burstable/pod" + uid + "/abc": uid,
		"/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod0f2e1d3c_1111_2222_3333_444455556666.slice/cri-containerd-1": uid,
		"/kubepods.slice/kubepods-pod0f2e1d3c_1111_2222_3333_444455556666.slice":                                                       uid,
		"/docker/abc": "", "/podman": "", "/kubepods/podx/abc": "",
	} {
		if got := podOf(path); got != want {
			t.Errorf("%s: %q", path, got)
		}
	}
}

func TestBitList(t *testing.T) {
	for want, b := range map[string][]byte{"": {0, 0}, "0": {1}, "0-3,7": {0x8f}, "7-8": {0x80, 1}, "1,3": {10}} {
		if got := bitList(b, 8*len(b)); got != want {
			t.Errorf("%x: %q, not %q", b, got, want)
		}
	}
	if got := bitList([]byte{0xff}, 2); got != "0-1" {
		t.Error(got)
	}
}

func TestSplitEnviron(t *testing.T) {
	got := splitEnviron("A=1\x00\x00B=\x00title\x00C=x=y")
	want := []EnvVariable{{"A", "1", true}, {"B", "", true}, {"title", "", false}, {"C", "x=y", true}}
	if len(got) != len(want) {
		t.Fatal(got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("%d: %+v", i, got[i])
		}
	}
}

func TestCapabilityNames(t *testing.T) {
	got := CapabilityNames(1 | 1<<21 | 1<<40 | 1<<63)
	want := []string{"chown", "sys_admin", "checkpoint_restore", "cap_63"}
	for i := range want {
		if len(got) != len(want) || got[i] != want[i] {
			t.Fatal(got)
		}
	}
}
