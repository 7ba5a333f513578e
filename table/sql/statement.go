package sql

import "strings"

// single reports whether text is one statement: nothing but blanks and comments comes
// after a semicolon. SQLite would run them all and give the last one's answer.
func single(text string) bool {
	ended := false
	for len(text) > 0 {
		token := len(text)
		end := func(opening int, closing string) {
			if n := strings.Index(text[opening:], closing); n >= 0 {
				token = opening + n + len(closing)
			}
		}
		switch c := text[0]; {
		case strings.ContainsRune(" \t\r\n\f", rune(c)):
			text = text[1:]
			continue
		case strings.HasPrefix(text, "--"):
			end(2, "\n")
			text = text[token:]
			continue
		case strings.HasPrefix(text, "/*"):
			end(2, "*/")
			text = text[token:]
			continue
		case c == ';':
			ended, text = true, text[1:]
			continue
		case c == '\'' || c == '"' || c == '`': // a doubled quote ends one and begins the next
			end(1, text[:1])
		case c == '[':
			end(1, "]")
		default:
			token = 1
		}
		if ended {
			return false
		}
		text = text[token:]
	}
	return true
}
