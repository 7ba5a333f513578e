package check

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"time"
	"unicode/utf8"
)

// Allowed is a finding that somebody has looked at and knows the cause of.
type Allowed struct {
	// Check is its ID, Object a pattern for what it is about, as the column object shows it
	// (path.Match: * and ?).
	Check  string `json:"check"`
	Object string `json:"object"`
	// Reason says why it is right here, and Expires until when (2006-01-02): what is
	// allowed for ever is forgotten.
	Reason  string `json:"reason"`
	Expires string `json:"expires"`

	until time.Time
}

// maxAllowed bounds a list, in bytes.
const maxAllowed = 1 << 20

// ReadAllowed reads a list of what is allowed: JSON, an array of [Allowed].
func ReadAllowed(r io.Reader) ([]Allowed, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxAllowed+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxAllowed {
		return nil, fmt.Errorf("it has more than %d bytes", maxAllowed)
	}
	if bytes.HasPrefix(bytes.TrimSpace(text), []byte("{")) {
		return nil, errors.New("it is a JSON object: write a list of entries, [{…}], also for one")
	}
	var list []Allowed
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&list); err != nil {
		return nil, fmt.Errorf("it is not a list of {check, object, reason, expires} in JSON: %s", faultOfJSON(text, err, d.InputOffset()))
	}
	if d.More() {
		return nil, fmt.Errorf("%s: something follows the list", placeIn(text, d.InputOffset()+1))
	}
	for i := range list {
		if err := list[i].validate(); err != nil {
			return nil, fmt.Errorf("entry %d: %w", i+1, err)
		}
	}
	return list, nil
}

// faultOfJSON says in plain words what is wrong with JSON, and where: read is how far it was read.
func faultOfJSON(text []byte, err error, read int64) string {
	var syntax *json.SyntaxError
	var wrong *json.UnmarshalTypeError
	field, unknown := strings.CutPrefix(err.Error(), "json: unknown field ")
	switch {
	case errors.Is(err, io.EOF) && len(bytes.TrimSpace(text)) == 0:
		return "it is empty"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "it ends before the list does"
	case unknown:
		return placeIn(text, read) + ": unknown field " + field
	case errors.As(err, &wrong):
		what := "an entry"
		if wrong.Field != "" {
			what = wrong.Field
		}
		return fmt.Sprintf("%s: %s is of type %s", placeIn(text, wrong.Offset), what, wrong.Value)
	case errors.As(err, &syntax) && syntax.Offset >= 1 && syntax.Offset <= int64(len(text)):
		met, _ := utf8.DecodeRune(text[syntax.Offset-1:])
		return fmt.Sprintf("%s: unexpected %q", placeIn(text, syntax.Offset), met)
	}
	return strings.TrimPrefix(err.Error(), "json: ")
}

// placeIn names the place of a text's n-th byte.
func placeIn(text []byte, n int64) string {
	before := text[:min(max(n-1, 0), int64(len(text)))]
	line := bytes.LastIndexByte(before, '\n') + 1
	return fmt.Sprintf("line %d, character %d", bytes.Count(before, []byte("\n"))+1, utf8.RuneCount(before[line:])+1)
}

func (a *Allowed) validate() (err error) {
	if _, ok := Lookup(a.Check); !ok {
		return fmt.Errorf("unknown check %q; outsight check --list shows them", a.Check)
	}
	if strings.TrimSpace(a.Reason) == "" {
		return errors.New("it has no reason")
	}
	if _, err := path.Match(a.Object, ""); err != nil || a.Object == "" {
		return fmt.Errorf("%q is not a pattern for an object, such as \"process * sshd\"", a.Object)
	}
	if a.until, err = time.ParseInLocation(time.DateOnly, a.Expires, time.Local); err != nil {
		return fmt.Errorf("expires is %q, not a date such as 2027-01-31", a.Expires)
	}
	a.until = a.until.AddDate(0, 0, 1) // that day included
	return nil
}

// Allows reports whether a finding is allowed at a time.
func (a *Allowed) Allows(f *Finding, at time.Time) bool {
	// An object may have slashes, which path.Match does not let * match.
	flat := strings.NewReplacer("/", "\x01").Replace
	ok, _ := path.Match(flat(a.Object), flat(f.Object.String())) // validate tried the pattern
	return a.Check == f.Check.ID && ok && at.Before(a.until)
}

// Expired reports whether an entry no longer counts.
func (a *Allowed) Expired(at time.Time) bool { return !at.Before(a.until) }

// Without are the findings that no entry allows, and how many are allowed.
func Without(findings []*Finding, allowed []Allowed, at time.Time) (rest []*Finding, n int) {
	for _, f := range findings {
		ok := false
		for i := range allowed {
			ok = ok || allowed[i].Allows(f, at)
		}
		if ok {
			n++
		} else {
			rest = append(rest, f)
		}
	}
	return rest, n
}
