package groundtruth

func init() {
	register(viewCase{view: "creds", keys: []string{"pid", "tid"}, args: []string{"--threads"}, ignore: ofTeller})
}
