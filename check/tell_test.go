package check

import (
	"slices"
	"strings"
	"testing"
)

// TestSays: who waits for a guest's programs, or for what was found to settle, reads what is being done.
func TestSays(t *testing.T) {
	var said []string
	o := chosen([]Option{WithAgent(guestAgent{"/bin/ps": "PID TTY TIME CMD\n1 ? 00:00:01 init\n"}), Progress(func(text string) { said = append(said, text) })})
	if _, err := o.ask(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(said) != len(questions) || said[0] != "asking the guest's programs for processes (1 of 7)" || !strings.HasSuffix(said[6], "(7 of 7)") {
		t.Errorf("%q", said)
	}
	said = nil
	a, b := &Check{ID: "a"}, &Check{ID: "b"}
	r := &Result{Findings: []*Finding{{Check: a}, {Check: b}}}
	o.sayAgain(0, r, []*Check{a})
	o.sayAgain(5, r, []*Check{a, b})
	o.sayAgain(1, &Result{}, []*Check{a})
	want := []string{
		"look 2: looking again at 1 finding, until it is clear what stays", "look 7: looking again at 2 findings, until it is clear what stays",
		"look 3: looking again at what could not be checked, until it is clear what stays",
	}
	if !slices.Equal(said, want) {
		t.Errorf("%q", said)
	}
	quiet := chosen(nil)
	quiet.sayAgain(0, r, []*Check{a}) // nobody wants to know
}
