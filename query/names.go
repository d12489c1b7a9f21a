package query

import (
	"fmt"

	"github.com/x/embedlog"
)

// The names of the topics that a graph keeps its rows in are made of the graph's and of what the program calls its views, stores and repartitions. So two graphs
// can mean one topic: view "spent" of graph "shop", and the view of graph "shop-spent". The one that comes second would take the first one's rows for its own
// at a restart, and nobody would notice. So whoever starts for the first time has topics that were not there. Where its progress is there, what it keeps was
// copied, without the record of generations.

// occupied says that one of the topics that a generation is to be kept in is there already, and not its own.
func (g *Graph) occupied(n *generation) error {
	there := map[string]embedlog.TopicID{}
	for _, info := range g.db.Topics() {
		there[info.Name] = info.ID
	}
	if _, ok := there[n.Topics[0]]; ok { // the one of progress, which is made first
		return nil
	}
	for _, name := range n.Topics {
		if id, ok := there[name]; ok {
			return fmt.Errorf("what it keeps would be in a topic that is another graph's or the program's: give the graph, or what is kept there, another name: %w",
				&embedlog.TopicExistsError{Name: name, ID: id})
		}
	}
	return nil
}
