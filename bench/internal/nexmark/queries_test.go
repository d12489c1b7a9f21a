package nexmark

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/x/embedlog"
	"github.com/x/embedlog/codec"
	"github.com/x/embedlog/embedlogtest"
	"github.com/x/embedlog/internal/testcount"
	"github.com/x/embedlog/query"
)

// Every query's result is what a naive reading of the same events says.
func TestQueries(t *testing.T) {
	db := embedlogtest.Open(t, nil).DB
	ctx := context.Background()
	top, err := db.CreateTopic(ctx, "events", nil)
	if err != nil {
		t.Fatal(err)
	}
	g := NewGenerator(1, 100) // slow, so that few events are many windows
	var all []Event
	var recs []embedlog.Record
	for range max(testcount.N(6000), 3000) {
		e := g.Next()
		all = append(all, e)
		rec, err := embedlog.Typed(top, codec.Int64, query.Codec[Event](EventCodec{})).Encode(e.Key(), e)
		if err != nil {
			t.Fatal(err)
		}
		rec.Timestamp = time.UnixMilli(e.At())
		recs = append(recs, rec)
	}
	for part := range slices.Chunk(recs, 700) {
		if _, err := top.Produce(ctx, part...); err != nil {
			t.Fatal(err)
		}
	}
	n := newNaive(all)
	for _, q := range Queries {
		t.Run(q.Name, func(t *testing.T) {
			in := Input{Graph: query.NewGraph(db, q.Name, nil), Events: top, Codec: EventCodec{}}
			if q.Name == "q20" || q.Name == "q0" {
				if in.Out, err = db.CreateTopic(ctx, "out-"+q.Name, nil); err != nil {
					t.Fatal(err)
				}
			}
			rows := q.Add(in)
			if err := in.Graph.Start(ctx); err != nil {
				t.Fatal(err)
			}
			if err := in.Graph.CatchUp(ctx); err != nil {
				t.Fatal(err)
			}
			if in.Out != nil {
				if err := in.Graph.Close(); err != nil {
					t.Fatal(err)
				}
			}
			got, err := rows(ctx)
			if err != nil {
				t.Fatal(err)
			}
			in.Graph.Close()
			want := n.results[q.Name]()
			if len(want) == 0 {
				t.Fatal("there is nothing to compare")
			}
			for _, k := range slices.Sorted(maps.Keys(want)) {
				if got[k] != want[k] {
					t.Fatalf("row %s:\n%s\nwant\n%s", k, got[k], want[k])
				}
			}
			if len(got) != len(want) {
				t.Fatalf("%d rows, want %d", len(got), len(want))
			}
		})
	}
}

// naive computes the queries from the events at once, as their definitions say.
type naive struct {
	persons  []*Person
	auctions []*Auction
	bids     []*Bid
	last     int64 // stream time
	results  map[string]func() map[string]string
}

func newNaive(all []Event) *naive {
	n := &naive{}
	for _, e := range all {
		n.last = max(n.last, e.At())
		switch {
		case e.Person != nil:
			n.persons = append(n.persons, e.Person)
		case e.Auction != nil:
			n.auctions = append(n.auctions, e.Auction)
		default:
			n.bids = append(n.bids, e.Bid)
		}
	}
	n.results = map[string]func() map[string]string{
		"q0": n.q0, "q1": n.q1, "q2": n.q2, "q3": n.q3, "q4": n.q4, "q5": n.q5, "q6": n.q6, "q7": n.q7,
		"q8": n.q8, "q9": n.q9, "q11": n.q11, "q17": n.q17, "q18": n.q18, "q19": n.q19, "q20": n.q20,
	}
	return n
}

func shown[K comparable, V any](m map[K]V) map[string]string {
	rows := map[string]string{}
	for k, v := range m {
		rows[fmt.Sprint(k)] = fmt.Sprintf("%+v", v)
	}
	return rows
}

func (n *naive) q0() map[string]string {
	rows := map[int]Bid{}
	for i, b := range n.bids {
		rows[i] = *b
	}
	return shown(rows)
}

func (n *naive) q1() map[string]string {
	var d Digest
	for _, b := range n.bids {
		d.Rows++
		d.Sum += b.Price * 908 / 1000
	}
	return shown(map[int]Digest{0: d})
}

func (n *naive) q2() map[string]string {
	rows := map[int64]Digest{}
	for _, b := range n.bids {
		if b.Auction%123 == 0 {
			d := rows[b.Auction]
			rows[b.Auction] = Digest{d.Rows + 1, d.Sum + b.Price}
		}
	}
	return shown(rows)
}

func (n *naive) q3() map[string]string {
	rows := map[int64]Local{}
	for _, a := range n.auctions {
		for _, p := range n.persons {
			if a.Category == 10 && a.Seller == p.ID && slices.Contains([]string{"OR", "ID", "CA"}, p.State) {
				rows[a.ID] = Local{a.ID, p.Name, p.City, p.State}
			}
		}
	}
	return shown(rows)
}

// winners are the bids that win, with their auctions.
func (n *naive) winners() (list []Sold) {
	for _, a := range n.auctions {
		var best *Bid
		for _, b := range n.bids {
			if b.Auction == a.ID && a.At <= b.At && b.At <= a.Expires && (best == nil || b.Price > best.Price || b.Price == best.Price && b.At < best.At) {
				best = b
			}
		}
		if best != nil {
			list = append(list, Sold{a, best})
		}
	}
	return list
}

func (n *naive) q4() map[string]string {
	sums, counts, rows := map[int64]int64{}, map[int64]int64{}, map[int64]float64{}
	for _, s := range n.winners() {
		sums[s.Auction.Category] += s.Bid.Price
		counts[s.Auction.Category]++
	}
	for c := range sums {
		rows[c] = float64(sums[c]) / float64(counts[c])
	}
	return shown(rows)
}

func (n *naive) q5() map[string]string {
	rows := map[int64]Hot{}
	for end := int64(firstTime) / 2000 * 2000; end <= n.last; end += 2000 {
		counts := map[int64]int64{}
		for _, b := range n.bids {
			if end-10_000 <= b.At && b.At < end {
				counts[b.Auction]++
			}
		}
		var h Hot
		for _, id := range slices.Sorted(maps.Keys(counts)) {
			if counts[id] > h.Bids {
				h = Hot{Bids: counts[id]}
			}
			if counts[id] == h.Bids {
				h.Auctions = append(h.Auctions, id)
			}
		}
		if h.Bids > 0 {
			rows[end] = h
		}
	}
	return shown(rows)
}

func (n *naive) q6() map[string]string {
	by, rows := map[int64][]Sold{}, map[int64]int64{}
	for _, s := range n.winners() {
		by[s.Auction.Seller] = append(by[s.Auction.Seller], s)
	}
	for seller, list := range by {
		slices.SortFunc(list, func(a, b Sold) int {
			return cmp.Or(cmp.Compare(b.Auction.Expires, a.Auction.Expires), // of two at one time, that whose encoding comes first
				cmp.Compare(string(encoded(SaleCodec{}, sale(a))), string(encoded(SaleCodec{}, sale(b)))))
		})
		list = list[:min(10, len(list))]
		sum := int64(0)
		for _, s := range list {
			sum += s.Bid.Price
		}
		rows[seller] = sum / int64(len(list))
	}
	return shown(rows)
}

func sale(s Sold) Sale {
	return Sale{s.Auction.Seller, s.Auction.Category, s.Auction.Expires, s.Bid.Price}
}

func encoded[V any](c query.Codec[V], v V) []byte {
	b, err := c.Append(nil, v)
	if err != nil {
		panic(err)
	}
	return b
}

func windowOf(key, at int64) query.WindowKey[int64] {
	start := at / 10_000 * 10_000
	return query.WindowKey[int64]{Key: key, Start: time.UnixMilli(start).UTC(), End: time.UnixMilli(start + 10_000).UTC()}
}

func (n *naive) q7() map[string]string {
	rows := map[query.WindowKey[int64]]Bid{}
	for _, b := range n.bids {
		w := windowOf(0, b.At)
		if best, ok := rows[w]; w.End.UnixMilli() <= n.last && (!ok || b.Price > best.Price) {
			rows[w] = *b
		}
	}
	return shown(rows)
}

func (n *naive) q8() map[string]string {
	rows := map[query.WindowKey[int64]]string{}
	for _, p := range n.persons {
		for _, a := range n.auctions {
			if w := windowOf(p.ID, p.At); a.Seller == p.ID && w == windowOf(p.ID, a.At) {
				rows[w] = p.Name
			}
		}
	}
	return shown(rows)
}

func (n *naive) q9() map[string]string {
	rows := map[string]string{}
	for _, s := range n.winners() {
		rows[fmt.Sprint(s.Auction.ID)] = showSold(s)
	}
	return rows
}

func (n *naive) q11() map[string]string {
	rows, by := map[query.WindowKey[int64]]int64{}, map[int64][]int64{}
	for _, b := range n.bids {
		by[b.Bidder] = append(by[b.Bidder], b.At)
	}
	for bidder, times := range by {
		slices.Sort(times)
		from := 0
		for i := range times {
			if i+1 == len(times) || times[i+1]-times[i] > 10_000 {
				rows[query.WindowKey[int64]{Key: bidder, Start: time.UnixMilli(times[from]).UTC(), End: time.UnixMilli(times[i]).UTC()}] = int64(i + 1 - from)
				from = i + 1
			}
		}
	}
	return shown(rows)
}

func (n *naive) q17() map[string]string {
	const day = 24 * 60 * 60 * 1000
	prices, rows := map[query.WindowKey[int64]][]int64{}, map[query.WindowKey[int64]]Stats{}
	for _, b := range n.bids {
		start := b.At / day * day
		k := query.WindowKey[int64]{Key: b.Auction, Start: time.UnixMilli(start).UTC(), End: time.UnixMilli(start + day).UTC()}
		prices[k] = append(prices[k], b.Price)
	}
	for k, list := range prices {
		s := Stats{Bids: int64(len(list)), Min: slices.Min(list), Max: slices.Max(list)}
		for _, p := range list {
			s.Sum += p
			if p < 10_000 {
				s.Cheap++
			} else if p < 1_000_000 {
				s.Middle++
			} else {
				s.Dear++
			}
		}
		rows[k] = s
	}
	return shown(rows)
}

func (n *naive) q18() map[string]string {
	rows := map[Pair]Bid{}
	for _, b := range n.bids {
		rows[Pair{b.Bidder, b.Auction}] = *b
	}
	return shown(rows)
}

func (n *naive) q19() map[string]string {
	by, rows := map[int64][]*Bid{}, map[int64]string{}
	for _, b := range n.bids {
		by[b.Auction] = append(by[b.Auction], b)
	}
	for id, list := range by {
		slices.SortFunc(list, func(a, b *Bid) int {
			return cmp.Or(cmp.Compare(b.Price, a.Price), cmp.Compare(string(encoded(BidCodec{}, a)), string(encoded(BidCodec{}, b))))
		})
		for _, b := range list[:min(10, len(list))] {
			rows[id] += fmt.Sprintf("%+v\n", *b)
		}
	}
	return shown(rows)
}

func (n *naive) q20() map[string]string {
	rows := map[int]string{}
	for _, b := range n.bids {
		for _, a := range n.auctions {
			if a.ID == b.Auction && a.Category == 10 {
				rows[len(rows)] = showSold(Sold{a, b})
			}
		}
	}
	return shown(rows)
}

// What is encoded reads back, and no cut of it is taken for something else.
func TestCodecs(t *testing.T) {
	g := NewGenerator(2, PerSecond)
	for range 200 {
		e := g.Next()
		b := encoded(EventCodec{}, e)
		if got, err := (EventCodec{}).Decode(b); err != nil || !reflect.DeepEqual(got, e) {
			t.Fatalf("%+v reads back as %+v, error %v", e, got, err)
		}
		for i := range b {
			if _, err := (EventCodec{}).Decode(b[:i]); err == nil {
				t.Fatalf("%d bytes of %d are an event", i, len(b))
			}
		}
	}
}

// The generator has the model's proportions: kinds, hot keys, sizes.
func TestGenerator(t *testing.T) {
	g := NewGenerator(3, PerSecond)
	var persons, auctions, bids, bytes, hotBids, hotBidders, hotSellers int
	const n = 50_000
	for range n {
		e := g.Next()
		switch {
		case e.Person != nil:
			persons++
		case e.Auction != nil:
			auctions++
			if (e.Auction.Seller-firstID)%hotEvery == 0 {
				hotSellers++
			}
		default:
			bids++
			bytes += len(encoded(BidCodec{}, e.Bid))
			if (e.Bid.Auction-firstID)%hotEvery == 0 {
				hotBids++
			}
			if (e.Bid.Bidder-firstID)%hotEvery == 1 {
				hotBidders++
			}
		}
	}
	share := func(part, of int) float64 { return float64(part) / float64(of) }
	if persons != n/50 || auctions != 3*n/50 || bids != 46*n/50 {
		t.Errorf("%d persons, %d auctions, %d bids", persons, auctions, bids)
	}
	for name, c := range map[string]struct{ got, want float64 }{
		"hot auctions": {share(hotBids, bids), 0.5}, "hot bidders": {share(hotBidders, bids), 0.75},
		"hot sellers": {share(hotSellers, auctions), 0.75}, "bytes of a bid": {share(bytes, bids) / 100, 1},
	} {
		if c.got < c.want-0.05 || c.got > c.want+0.05 {
			t.Errorf("%s: %.2f, want %.2f", name, c.got, c.want)
		}
	}
}
