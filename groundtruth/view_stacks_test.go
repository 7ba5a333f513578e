package groundtruth

import "strings"

func init() {
	register(viewCase{view: "stacks", keys: []string{"pid", "tid"}, ignore: awake})
}

// awake says of a thread that it may be somewhere else at every look: it is the
// teller's, or what serves it.
func awake(row map[string]any) bool {
	comm, _ := row["comm"].(string)
	return ofTeller(row) || strings.HasPrefix(comm, "kworker/") || strings.HasPrefix(comm, "rcu_")
}
