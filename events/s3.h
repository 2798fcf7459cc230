/* s3.h - what object stores send about their objects, as one kind of event.
 *
 * Understood: S3's own event message ("Records", versions 2.x; AWS: "Event message structure" in
 * the Amazon S3 User Guide), as AWS, MinIO (which puts "EventName" and "Key" beside it) and Ceph
 * RGW (which adds "eventId" and "opaqueData") write it; the message that S3 sends when a
 * notification is configured ("s3:TestEvent"); either of them in the envelope of AWS SNS; and
 * Amazon EventBridge's "aws.s3" events.
 *
 * In what a function gets, an object's key is its name as it is: AWS and MinIO encode keys as HTML
 * forms do, which is undone; Ceph and EventBridge do not. All else of a record stays as the store
 * wrote it. EventBridge's events become S3 records.
 */
#ifndef UNID_EVENTS_S3_H
#define UNID_EVENTS_S3_H

#include "events/event.h"

enum s3_delivery_kind {
    S3_RECORDS,     /* `events` has what came; may be empty */
    S3_TEST,        /* the store tries the address; nothing happened to an object */
    S3_SUBSCRIBE,   /* SNS asks whether it may send: whoever gets `subscribe_url` says yes */
    S3_UNSUBSCRIBED /* SNS will not send any more */
};

struct s3_delivery {
    enum s3_delivery_kind kind;
    struct event_list events;
    char *topic_arn, *subscribe_url; /* of SNS; may be NULL in an envelope of records */
};
void s3_delivery_done(struct s3_delivery *d);

/* -EINVAL with what is expected; -E2BIG more than LIMIT_EVENT_RECORDS; -ENOMEM. `ret` is untouched
 * then, else released with s3_delivery_done. */
int s3_parse(const void *data, size_t len, struct s3_delivery *ret, struct un_error *err);

#endif
