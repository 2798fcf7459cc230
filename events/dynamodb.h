/* dynamodb.h - changes of table items, as DynamoDB Streams describes them (API reference:
 * "Record", "StreamRecord"; what AWS Lambda is given as {"Records": [...]}), also from stores that
 * speak its API.
 */
#ifndef UNID_EVENTS_DYNAMODB_H
#define UNID_EVENTS_DYNAMODB_H

#include "events/event.h"

/* Whether a JSON body looks like such records, so that its errors are to be told as theirs. */
bool dynamodb_is_delivery(const json_t *root);

/* -EINVAL with what is expected; -E2BIG more than LIMIT_EVENT_RECORDS; -ENOMEM. `ret` is untouched
 * then, else released with event_list_done. */
int dynamodb_parse(const void *data, size_t len, struct event_list *ret, struct un_error *err);

#endif
