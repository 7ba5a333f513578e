package trace

import "strings"

// maxCommand bounds a command line, in bytes.
const maxCommand = 4096

// CommandLine is arguments as one types them into a shell.
func CommandLine(args []string) string {
	var b strings.Builder
	for i, a := range args {
		if i > 0 {
			b.WriteByte(' ')
		}
		if b.Len()+len(a) > maxCommand {
			b.WriteString("…")
			break
		}
		const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./:-=+,@%^"
		if a != "" && strings.Trim(a, plain) == "" {
			b.WriteString(a)
			continue
		}
		b.WriteString("'" + strings.ReplaceAll(a, "'", `'\''`) + "'")
	}
	return strings.Clone(b.String())
}
