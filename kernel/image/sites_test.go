package image

import "testing"

func TestRuntimeSection(t *testing.T) {
	for _, c := range []struct {
		section, variable string
		size              uint8
	}{
		{"runtime_ptr_dentry_hashtable", "dentry_hashtable", 8},
		{"runtime_shift_d_hash_shift", "d_hash_shift", 1},
		{"runtime_mask___futex_mask", "__futex_mask", 4},
		{".text", "", 0},
		{"runtime_", "", 0},
	} {
		if v, size := RuntimeSection(c.section); v != c.variable || size != c.size {
			t.Errorf("%s is of %d bytes of %q, not %d of %q", c.section, size, v, c.size, c.variable)
		}
	}
}
