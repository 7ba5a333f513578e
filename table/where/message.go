package where

import (
	"fmt"
	"regexp"
	"strings"
	"sync"

	"cel.dev/cel-go/cel"
)

// message says in one sentence what is wrong first with an expression, and where. What follows from that is left out.
func message(expression string, issues *cel.Issues) string {
	all := issues.Errors()
	if len(all) == 0 {
		return issues.Err().Error()
	}
	line, column := all[0].Location.Line(), all[0].Location.Column()
	at := fmt.Sprintf("character %d", column+1)
	lines := strings.Split(expression, "\n")
	if len(lines) > 1 {
		at = fmt.Sprintf("line %d, %s", line, at)
	}
	var rest []rune
	if line >= 1 && line <= len(lines) {
		if rest = []rune(lines[line-1]); column >= 0 && column <= len(rest) {
			rest = rest[column:]
		}
	}
	if strings.TrimSpace(expression) == "" {
		return "it is empty"
	}
	return at + ": " + plain(all[0].Message, string(rest))
}

type rewrite struct {
	from *regexp.Regexp
	to   func(found []string, rest string) string
}

// rewrites put what the compiler of expressions says into other words, as it speaks of its grammar.
var rewrites = sync.OnceValue(func() []rewrite {
	like := func(pattern string) *regexp.Regexp { return regexp.MustCompile(`(?s)^` + pattern + `$`) }
	return []rewrite{
		{like(`token recognition error at: '(.*)'`), func(found []string, _ string) string {
			text := strings.TrimSpace(found[1])
			switch {
			case text == "=":
				return "unexpected =: write == to compare"
			case strings.HasPrefix(text, "'"), strings.HasPrefix(text, `"`):
				return "the text " + text + " has no quotation mark at its end"
			}
			return "unexpected " + text
		}},
		{like(`(?:mismatched|extraneous) input '(.*)' expecting .*`), func(found []string, _ string) string {
			switch strings.ToLower(found[1]) {
			case "<eof>":
				return "it ends where a value is expected"
			case "and":
				return "unexpected " + found[1] + ": write &&"
			case "or":
				return "unexpected " + found[1] + ": write ||"
			case "not":
				return "unexpected " + found[1] + ": write !"
			}
			return "unexpected " + found[1]
		}},
		{like(`missing '(.*)' at '(.*)'`), func(found []string, _ string) string { return found[1] + " is missing" }},
		{like(`undeclared reference to '(\S*)'(?: \(did you mean '(\S*)'\?\))?.*`), func(found []string, rest string) string {
			switch {
			case strings.HasPrefix(rest, "("):
				return "no function " + found[1]
			case found[2] != "":
				return fmt.Sprintf("no column %s; did you mean %s?", found[1], found[2])
			}
			return fmt.Sprintf("no column %s; text is written in quotes: %q", found[1], found[1])
		}},
		{like(`found no matching overload for '@?(.*?)' applied to '\((.*)\)'`), func(found []string, _ string) string {
			return strings.Trim(found[1], "_") + " does not take " + strings.Join(strings.Split(found[2], ", "), " and ")
		}},
		{like(`found no matching overload for '(.*)' applied to '(.*)\.\((.*)\)'`), func(found []string, _ string) string {
			return fmt.Sprintf("%s of %s does not take (%s)", found[1], found[2], found[3])
		}},
	}
})

// plain puts a message of the compiler's into plain words. rest is the expression from where it points to.
func plain(text, rest string) string {
	text = plainTypes(strings.TrimPrefix(text, "Syntax error: "))
	for _, r := range rewrites() {
		if found := r.from.FindStringSubmatch(text); found != nil {
			return r.to(found, rest)
		}
	}
	text, _, _ = strings.Cut(text, "\n")
	if text == "" {
		return "it cannot be read"
	}
	return strings.ToLower(text[:1]) + text[1:]
}
