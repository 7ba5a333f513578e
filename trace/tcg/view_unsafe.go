package tcg

import "unsafe"

// view is b as a string, without a copy: valid as long as b is not written.
func view(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	return unsafe.String(&b[0], len(b))
}
