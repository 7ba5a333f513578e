package check

import "fmt"

// Progress has [Run] say what it does, where that takes long: it looks again at what was found, asks the guest's programs, or listens to
// them. say is called from one goroutine at a time.
func Progress(say func(text string)) Option { return func(o *options) { o.progress = say } }

// say says what is done next.
func (o *options) say(format string, args ...any) {
	if o.progress != nil {
		o.progress(fmt.Sprintf(format, args...))
	}
}

// sayAgain says that what was found is looked at again, for the i-th time.
func (o *options) sayAgain(i int, r *Result, again []*Check) {
	found := 0
	for _, f := range r.Findings {
		for _, c := range again {
			if f.Check == c {
				found++
			}
		}
	}
	what := plural(found, "finding")
	if found == 0 {
		what = "what could not be checked"
	}
	o.say("look %d: looking again at %s, until it is clear what stays", i+2, what)
}
