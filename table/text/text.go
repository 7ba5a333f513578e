// Package text makes text that a guest controls safe to show and safe to store.
//
// Guest text is bytes: a process may call itself anything, escape sequences that
// repaint the operator's terminal and halves of UTF-8 sequences included. There
// are two written forms, and both can be undone:
//
//   - [Visible] is for eyes: terminals, CSV files, error messages. Whatever does
//     not show as itself is written as an escape, \xNN for a byte and \uNNNN or
//     \UNNNNNNNN for a character, so that nothing invisible or active gets out.
//   - [Lossless] is for programs: the strings in JSON. Valid UTF-8 stays as it is;
//     a byte that is not part of valid UTF-8 becomes U+FFFD and two hex digits.
package text

import (
	"strconv"
	"unicode"
	"unicode/utf8"
)

// maxMarks is how many combining marks may follow each other. No script needs
// more, and a tower of them would cover the lines above.
const maxMarks = 4

// Plain reports whether the character r shows as itself, alone, wherever it
// stands. Not plain are control characters, the C1 set included, format
// characters (bidirectional overrides, zero-width, tags), spaces other than
// U+0020, private and unassigned characters, and letters that draw nothing.
func Plain(r rune) bool {
	if r < utf8.RuneSelf {
		return r >= ' ' && r < 0x7f
	}
	return strconv.IsPrint(r) && !blank(r)
}

// blank reports whether r counts as a letter, mark or symbol in Unicode and yet
// draws nothing: good for making two different names look alike.
func blank(r rune) bool {
	switch {
	case r == 0x034f, // combining grapheme joiner
		r == 0x115f, r == 0x1160, r == 0x3164, r == 0xffa0, // Hangul fillers
		r == 0x17b4, r == 0x17b5, // Khmer inherent vowels
		r == 0x2800,                // Braille pattern without dots
		r >= 0x180b && r <= 0x180f, // Mongolian variation selectors
		r >= 0xfe00 && r <= 0xfe0f, // variation selectors
		r >= 0xe0100 && r <= 0xe01ef:
		return true
	}
	return false
}

func isMark(r rune) bool {
	return r >= 0x300 && unicode.In(r, unicode.Mn, unicode.Me)
}

// state distinguishes the characters that are fine where they are from those that are
// not: a mark needs something in front of it, and not too many of its kind.
type state struct {
	marks int // marks since the last character with a width; -1: none to stand on
}

func newState() state { return state{marks: -1} }

func (s *state) shows(r rune) bool {
	if !Plain(r) {
		s.marks = 0 // the escape that will be written can carry a mark
		return false
	}
	if !isMark(r) {
		s.marks = 0
		return true
	}
	if s.marks < 0 || s.marks >= maxMarks {
		return false
	}
	s.marks++
	return true
}
