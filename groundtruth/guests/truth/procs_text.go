package main

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// procsText is the form in which outsight's JSON has bytes that may be no UTF-8: each
// such byte is U+FFFD and two hex digits, and so is every byte of a U+FFFD itself.
func procsText(s string) string {
	var out strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		if r != utf8.RuneError {
			out.WriteString(s[:n])
			s = s[n:]
			continue
		}
		for i := range n {
			fmt.Fprintf(&out, "\ufffd%02x", s[i])
		}
		s = s[n:]
	}
	return out.String()
}
