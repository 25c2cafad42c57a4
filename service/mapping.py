"""The map of a collection, for requests and for jobs: its items on a plane, and in clusters."""

from functools import partial

from service.collecting import Collecting
from service.collections.filters import Filter
from service.collections.positions import Map, check_few_items, place_items
from service.collections.records import Collection
from service.comparisons import compared
from service.formats.collection_answers import ItemMap, PlacedItem
from service.threads import in_thread
from service.traffic.budget import Share


async def mapped(
    share: Share,
    collected: Collecting,
    collection: Collection,
    filter: Filter,
    *,
    clusters: int,
    seed: int,
) -> ItemMap:
    """The items for which a filter holds, each with its place and its cluster.

    Raises:
        StoreError: there are too many.
        Problem: memory is full.
    """
    found = await compared(
        share,
        collected,
        collection,
        filter,
        lambda size: check_few_items(size.items),
        partial(place_items, n_clusters=clusters, seed=seed),
    )
    return await in_thread(_named, collected, collection, found)


async def check_size(collected: Collecting, collection: Collection, filter: Filter) -> None:
    """Refuse, before the work is begun, a map of more items than one holds.

    Raises:
        StoreError: there are too many.
    """
    size = await in_thread(collected.store.items.size, collection, filter)
    check_few_items(size.items)


def _named(collected: Collecting, collection: Collection, found: Map) -> ItemMap:
    names = collected.store.items.by_key(collection, found.items.tolist())
    rows = zip(found.items.tolist(), found.places.tolist(), found.clusters.tolist(), strict=True)
    return ItemMap(
        collection=collection.name,
        data=[
            PlacedItem(id=names[key].id, file=names[key].file, x=x, y=y, cluster=cluster)
            for key, (x, y), cluster in rows
            if key in names
        ],
    )
