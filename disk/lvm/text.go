package lvm

import (
	"fmt"
	"strconv"
)

// A section is a part of LVM's text: names with values, which are int64, string, []any, or a *section.
type section struct {
	names  []string // in their order
	values map[string]any
}

const (
	maxDepth  = 16
	maxValues = 1 << 20
)

// parser reads the text of metadata, as libdaemon's config does.
type parser struct {
	text   []byte
	at     int
	values int
}

func parseText(text []byte) (*section, error) {
	p := &parser{text: text}
	return p.section(0)
}

func (p *parser) fail(what string) error {
	return corrupt(-1, "metadata: %s at character %d of the text", what, p.at)
}

// skip goes over blanks and comments.
func (p *parser) skip() {
	for ; p.at < len(p.text); p.at++ {
		switch c := p.text[p.at]; {
		case c == '#':
			for p.at < len(p.text) && p.text[p.at] != '\n' {
				p.at++
			}
		case c != ' ' && c != '\t' && c != '\n' && c != '\r':
			return
		}
	}
}

// peek is the next character; 0 at the end, which LVM marks by a 0.
func (p *parser) peek() byte {
	p.skip()
	if p.at >= len(p.text) {
		return 0
	}
	return p.text[p.at]
}

func isName(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-' || c == '.' || c == '+' || c == '@' || c == '/'
}

func (p *parser) section(depth int) (*section, error) {
	if depth > maxDepth {
		return nil, p.fail("sections in more than 16 others")
	}
	s := &section{values: map[string]any{}}
	for {
		c := p.peek()
		if c == 0 && depth == 0 {
			return s, nil
		}
		if c == '}' && depth > 0 {
			p.at++
			return s, nil
		}
		start := p.at
		for p.at < len(p.text) && isName(p.text[p.at]) {
			p.at++
		}
		name := string(p.text[start:p.at])
		if name == "" {
			return nil, p.fail("no name")
		}
		if _, twice := s.values[name]; twice {
			return nil, p.fail(fmt.Sprintf("%q twice", name))
		}
		value, err := p.assigned(depth)
		if err != nil {
			return nil, err
		}
		s.names, s.values[name] = append(s.names, name), value
	}
}

// assigned is what follows a name: = and a value, or a section.
func (p *parser) assigned(depth int) (any, error) {
	if p.values++; p.values > maxValues {
		return nil, p.fail("more than 1048576 values")
	}
	c := p.peek()
	p.at++
	switch c {
	case '{':
		return p.section(depth + 1)
	case '=':
		return p.value(true)
	}
	p.at--
	return nil, p.fail("neither = nor {")
}

func (p *parser) value(list bool) (any, error) {
	switch c := p.peek(); {
	case c == '"':
		return p.quoted()
	case c == '[' && list:
		p.at++
		return p.list()
	case c == '-' || c >= '0' && c <= '9':
		start := p.at
		for p.at++; p.at < len(p.text) && (p.text[p.at] >= '0' && p.text[p.at] <= '9' || p.text[p.at] == '.'); p.at++ {
		}
		n, err := strconv.ParseInt(string(p.text[start:p.at]), 10, 64)
		if err != nil {
			return nil, p.fail("a number that is none")
		}
		return n, nil
	}
	return nil, p.fail("no value")
}

func (p *parser) quoted() (string, error) {
	var b []byte
	for p.at++; p.at < len(p.text); p.at++ {
		switch c := p.text[p.at]; {
		case c == '"':
			p.at++
			return string(b), nil
		case c == '\\' && p.at+1 < len(p.text):
			p.at++
			b = append(b, p.text[p.at])
		default:
			b = append(b, c)
		}
	}
	return "", p.fail("a string without an end")
}

func (p *parser) list() ([]any, error) {
	var all []any
	for p.peek() != ']' {
		if p.values++; p.values > maxValues {
			return nil, p.fail("more than 1048576 values")
		}
		v, err := p.value(false)
		if err != nil {
			return nil, err
		}
		all = append(all, v)
		if p.peek() == ',' {
			p.at++
		} else if p.peek() != ']' {
			return nil, p.fail("a list without an end")
		}
	}
	p.at++
	return all, nil
}

func (s *section) number(name string) int64 {
	n, _ := s.values[name].(int64)
	return n
}

func (s *section) text(name string) string {
	t, _ := s.values[name].(string)
	return t
}

func (s *section) list(name string) []any {
	l, _ := s.values[name].([]any)
	return l
}

// sub gives an empty section if there is none of the name.
func (s *section) sub(name string) *section {
	if found, ok := s.values[name].(*section); ok {
		return found
	}
	return &section{}
}

// has reports whether a list of strings has one.
func (s *section) has(name, word string) bool {
	for _, v := range s.list(name) {
		if v == word {
			return true
		}
	}
	return false
}
